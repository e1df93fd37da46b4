"""Engines through TensorRT's own network API with native collectives: one a rank, whole or in segments."""
