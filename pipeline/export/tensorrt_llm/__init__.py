"""TensorRT-LLM: its checkpoint layout, classes and workers."""
