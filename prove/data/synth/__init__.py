"""How SynthStreet is drawn: canvas and camera, ground, things, their arrangement, and the weather on top.

Equal parameters give equal pixels: integers and the four operations of IEEE arithmetic, no `exp`, `sin` or `pow` on
arrays (vector libraries differ in the last bit), and PNG files in stored blocks, because compressors differ too.
"""
