"""The GPU forms, under the names of the operations. Import them only where a tensor is on a GPU: they need Triton."""
