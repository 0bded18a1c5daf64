"""The fused objective on a GPU: Triton kernels that follow `prove.losses.cpu` pass by pass.

What a batch costs, in reads and writes of the logits at the labels' size (19 classes in float32 are 76 bytes a pixel;
labels are 8, and read three times):

- logarithmic and region parts: one read, then one read and one write;
- mining: one more read, and a sort of one number per pixel;
- Lovász by bins: nothing more, but an atomic addition per pixel and class that is present in the image, and a
  table look-up per pixel and class; by sorting: one write, one read, and a sort of every class;
- boundary: in each pass eight more reads, mostly from the caches, in the second pass through scratch of a fixed size;
- upsampled: all of these are of the low-resolution logits, and nothing of full size is kept; the second pass computes a
  quarter more, around its tiles.

Sums are added in a fixed order and in float64; the only atomic operations are on integers. So the same device gives the
same bits, and block sizes are fixed by the number of classes, never tuned at run time.

Not measured: the kernels ran in Triton's interpreter and were compiled for compute capability 9.0; none ran on a GPU.
Block sizes follow from bytes and from the registers that the compiler reported. What a GPU may show: bins that many
pixels share make atomic additions wait, and errors too small to matter (below the smallest one of a class's own pixels)
are counted all the same; class counts just above a power of two compute almost twice as many exponentials as needed.
"""
