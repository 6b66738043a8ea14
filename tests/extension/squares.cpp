#include <torch/extension.h>

torch::Tensor squares_cuda(torch::Tensor in);

torch::Tensor squares(torch::Tensor in) {
  TORCH_CHECK(in.is_cuda(), "a CUDA tensor is wanted");
  return squares_cuda(in.contiguous());
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("squares", &squares, "the squares of a tensor"); }
