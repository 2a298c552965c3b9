// The makers of the backends, one a family of configurations.
#pragma once

#include "backend.h"

namespace rp {

// "cpu-fused": ops/kernels' own CPU training kernel. Needs no libtorch.
std::unique_ptr<Backend> make_cpu_fused_backend(const TrainerSpec &spec, const TrainingData &data);

// In librp_torch.so only.
// "cpu", "gpu", "gpu-kernel", "gpu-graph": libtorch's operators.
std::unique_ptr<Backend> make_torch_backend(const TrainerSpec &spec, const TrainingData &data);
// "gpu-fused": the whole-step operator rp::lstm_train_. Throws Error RP_ERROR_UNAVAILABLE with the
// reason when the model or the GPU is not one that the kernel was built for.
std::unique_ptr<Backend> make_gpu_fused_backend(const TrainerSpec &spec, const TrainingData &data);

} // namespace rp
