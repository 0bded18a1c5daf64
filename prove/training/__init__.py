"""One job in one process: operators, objective wiring and its proof, training, evaluation. The only mmseg code."""
