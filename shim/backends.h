// The makers of the backends, one a family of configurations; in librp_torch.so but for cpu-fused.
#pragma once

#include "backend.h"

namespace rp {

// "cpu", "gpu", "gpu-kernel", "gpu-graph": libtorch's operators.
std::unique_ptr<Backend> make_torch_backend(const TrainerSpec &spec, const TrainingData &data);

// "gpu-fused": the project's persistent kernel, or gpu-graph where it does not fit (see note()).
std::unique_ptr<Backend> make_fused_backend(const TrainerSpec &spec, const TrainingData &data);

// "cpu-fused": the project's own kernels on the CPU; in librp.so, without libtorch.
std::unique_ptr<Backend> make_cpu_fused_backend(const TrainerSpec &spec, const TrainingData &data);

} // namespace rp
