// The makers of the backends, one a family of configurations; all in librp_torch.so.
#pragma once

#include "backend.h"

namespace rp {

// "cpu", "gpu", "gpu-kernel", "gpu-graph": libtorch's operators.
std::unique_ptr<Backend> make_torch_backend(const TrainerSpec &spec, const TrainingData &data);

} // namespace rp
