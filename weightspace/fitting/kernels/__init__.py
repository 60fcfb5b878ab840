"""Three ways to fit a chunk of networks: tensors, compiled for the CPU, and CUDA. See README.md here."""
