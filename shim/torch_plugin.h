// What librp_torch.so offers to librp.so. It is loaded on first use, so that programs which only
// run a checkpoint never pay for libtorch's start.
#pragma once

#include "ranks.h"

struct rp_checkpoint;

namespace rp {

struct TorchPlugin {
    // Why this machine can't run `configuration`; "" when it can.
    std::string (*unavailable)(const std::string &configuration);
    std::unique_ptr<Backend> (*make_backend)(const TrainerSpec &spec, const TrainingData &data);
    // Runs steps [first_step, first_step + steps) of all these gpu-fused backends in the same
    // launches; losses [backends][steps]. False, and nothing done, where one of them fell back to
    // another configuration.
    bool (*train_together)(const std::vector<Backend *> &backends, int64_t first_step,
                           int64_t steps, float *losses);
    int64_t (*multiprocessors)(); // of the GPU
    std::unique_ptr<Ranks> (*make_ranks)(const rp_ranks_options &options);
    void (*describe_machine)(rp_machine &machine);
    void (*reference_predict)(float *returns, const rp_checkpoint &checkpoint,
                              const std::string &device, const float *features, int64_t rows,
                              const int32_t *window_ends, int64_t windows);
    int64_t (*verify)(const std::string &device, bool perturb, rp_verify_callback callback,
                      void *context);
};

// Loads librp_torch.so on the first call; throws Error RP_ERROR_UNAVAILABLE when it can't.
const TorchPlugin &torch_plugin();

} // namespace rp

// The plugin's one exported symbol; its name is what librp.so looks up.
extern "C" const rp::TorchPlugin *rp_torch_plugin();
