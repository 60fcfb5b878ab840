"""The solver of weight matching: the problem, and its solution in compiled code and with tensors; see README.md."""
