"""Find out what stands between a host and a working veRL + SGLang + Megatron on CUDA 12.4."""
