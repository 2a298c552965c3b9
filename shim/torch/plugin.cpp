// librp_torch.so's one entrance, and the place where libtorch's exceptions become this library's.
#include "torch_plugin.h"

#include <c10/util/Exception.h>

#include "backends.h"
#include "guard.h"
#include "torch/device.h"
#include "torch/store_ranks.h"
#include "torch/reference.h"
#include "torch/verify.h"

namespace rp {
namespace {

// c10's what() carries a backtrace of 20 lines; its first line is the message.
template <typename Body> auto translate(Body &&body) -> decltype(body()) {
    try {
        return body();
    } catch (const c10::OutOfMemoryError &failure) {
        throw error(RP_ERROR_DEVICE,
                    "GPU memory is exhausted: %s; use a smaller batch, or free the "
                    "GPU",
                    failure.what_without_backtrace());
    } catch (const c10::Error &failure) {
        const std::string text = failure.what_without_backtrace();
        const bool device =
            text.find("CUDA") != std::string::npos || text.find("cuDNN") != std::string::npos;
        throw error(device ? RP_ERROR_DEVICE : RP_ERROR_INTERNAL, "libtorch: %s",
                    text.substr(0, text.find('\n')).c_str());
    }
}

// Translates what a backend throws while it works.
class TranslatingBackend : public Backend {
  public:
    explicit TranslatingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
    void load(const State &state) override {
        translate([&] { inner_->load(state); });
    }
    void store(State &state) override {
        translate([&] { inner_->store(state); });
    }
    void train(int64_t first_step, int64_t steps, float *losses) override {
        translate([&] { inner_->train(first_step, steps, losses); });
    }
    int64_t peak_memory() const override {
        return translate([&] { return inner_->peak_memory(); });
    }
    int64_t skipped_steps() const override { return inner_->skipped_steps(); }
    std::string precision() const override { return inner_->precision(); }
    std::string note() const override { return inner_->note(); }
    Backend *inner() { return inner_.get(); }

  private:
    std::unique_ptr<Backend> inner_;
};

bool train_together(const std::vector<Backend *> &backends, int64_t first_step, int64_t steps,
                    float *losses) {
    std::vector<Backend *> inner;
    for (Backend *backend : backends) {
        inner.push_back(static_cast<TranslatingBackend *>(backend)->inner());
    }
    return translate([&] { return train_fused_together(inner, first_step, steps, losses); });
}

std::unique_ptr<Backend> make_backend(const TrainerSpec &spec, const TrainingData &data) {
    return translate([&]() -> std::unique_ptr<Backend> {
        const std::string reason = configuration_unavailable(spec.configuration);
        if (!reason.empty()) {
            throw error(RP_ERROR_DEVICE, "configuration %s can't run here: %s",
                        spec.configuration.c_str(), reason.c_str());
        }
        const auto make =
            spec.configuration == "gpu-fused" ? make_fused_backend : make_torch_backend;
        return std::make_unique<TranslatingBackend>(make(spec, data));
    });
}

void translated_reference(float *returns, const rp_checkpoint &checkpoint,
                          const std::string &device, const float *features, int64_t rows,
                          const int32_t *window_ends, int64_t windows) {
    translate([&] {
        reference_predict(returns, checkpoint, device, features, rows, window_ends, windows);
    });
}

int64_t translated_verify(const std::string &device, bool perturb, rp_verify_callback callback,
                          void *context) {
    return translate([&] { return verify(device, perturb, callback, context); });
}

constexpr TorchPlugin plugin = {.unavailable = configuration_unavailable,
                                .make_backend = make_backend,
                                .train_together = train_together,
                                .multiprocessors = gpu_multiprocessors,
                                .make_ranks = make_ranks,
                                .describe_machine = describe_machine,
                                .reference_predict = translated_reference,
                                .verify = translated_verify};

} // namespace
} // namespace rp

extern "C" __attribute__((visibility("default"))) const rp::TorchPlugin *rp_torch_plugin() {
    (void)rp::gpu_unavailable(); // before anything else asks libtorch about CUDA
    return &rp::plugin;
}
