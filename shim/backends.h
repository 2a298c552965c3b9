// The makers of the backends, one a family of configurations; in librp_torch.so but for cpu-fused.
#pragma once

#include "backend.h"

namespace rp {

// "cpu", "gpu", "gpu-kernel", "gpu-graph": libtorch's operators.
std::unique_ptr<Backend> make_torch_backend(const TrainerSpec &spec, const TrainingData &data);

// "gpu-fused": the project's persistent kernel, or gpu-graph where it does not fit (see note()).
std::unique_ptr<Backend> make_fused_backend(const TrainerSpec &spec, const TrainingData &data);

// Trains in the same launches, if all of them have the persistent kernel; see TorchPlugin.
bool train_fused_together(const std::vector<Backend *> &backends, int64_t first_step, int64_t steps,
                          float *losses);

// "cpu-fused": the project's own kernels on the CPU; in librp.so, without libtorch.
std::unique_ptr<Backend> make_cpu_fused_backend(const TrainerSpec &spec, const TrainingData &data);

} // namespace rp
