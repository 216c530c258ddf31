"""Merge methods: pure functions, tensors in, tensor out, fp32."""
