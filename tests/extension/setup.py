"""A small CUDA extension of the tests' own: one kernel, one assertion that prints its file."""

from setuptools import setup  # type: ignore[import-untyped]
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

setup(
    name="envcheck-squares",
    version="1.0",
    ext_modules=[CUDAExtension("envcheck_squares", ["squares.cpp", "squares_kernel.cu"])],
    cmdclass={"build_ext": BuildExtension},
)
