// Prediction, seen from C: the CPU kernel over threads, and libtorch as the reference.
#include <algorithm>
#include <cinttypes>
#include <thread>

#include "checkpoint.h"
#include "guard.h"
#include "kernels/lstm_cpu.h"
#include "model.h"
#include "torch_plugin.h"

struct rp_predictor {
    rp::LstmCpu model;
    float target_unit;
    std::vector<rp::LstmCpu::Scratch> scratch; // one a thread
};

namespace rp {
namespace {

// Fewer windows than this are not worth a thread's start.
constexpr int64_t windows_a_thread = 32;

void check_windows(const float *returns, const float *features, int64_t rows,
                   const int32_t *window_ends, int64_t windows, int32_t time_steps) {
    require(features, "features");
    require(window_ends, "window_ends");
    require(returns, "returns");
    for (int64_t w = 0; w < windows; ++w) {
        if (window_ends[w] < time_steps - 1 || window_ends[w] >= rows) {
            throw error(RP_ERROR_ARGUMENT,
                        "window %" PRId64 " ends at row %d; it must lie inside "
                        "[%d, %" PRId64 ")",
                        w, window_ends[w], time_steps - 1, rows);
        }
    }
}

rp_predictor *make(const rp_checkpoint &checkpoint, int32_t threads) {
    if (threads < 0 || threads > 1024) {
        throw error(RP_ERROR_ARGUMENT, "threads is %d; it must be from 0 to 1024", threads);
    }
    const auto cores = static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
    const rp_model_options &options = checkpoint.model;
    const LstmCpuShape shape = {options.features, options.time_steps, options.hidden,
                                options.layers};
    const State &state = checkpoint.state;
    auto predictor = std::unique_ptr<rp_predictor>(new rp_predictor{
        LstmCpu(shape, state.parameters.data(), state.running_mean.data(), state.running_var.data(),
                options.norm_eps, options.negative_slope),
        static_cast<float>(checkpoint.target_unit),
        {}});
    for (int32_t thread = 0; thread < (threads ? threads : cores); ++thread) {
        predictor->scratch.emplace_back(predictor->model);
    }
    return predictor.release();
}

void run(float *returns, rp_predictor &predictor, const float *features, const int32_t *window_ends,
         int64_t windows) {
    const int64_t most = static_cast<int64_t>(predictor.scratch.size());
    const int64_t threads = std::clamp<int64_t>(windows / windows_a_thread, 1, most);
    const int64_t share = (windows + threads - 1) / threads;
    auto part = [&](int64_t index) {
        const int64_t first = std::min(windows, index * share);
        const int64_t count = std::min(share, windows - first);
        predictor.model.run(returns + first, predictor.scratch[static_cast<size_t>(index)],
                            features, window_ends + first, count);
        for (int64_t w = first; w < first + count; ++w) {
            returns[w] *= predictor.target_unit; // exact: a power of two
        }
    };
    std::vector<std::thread> others;
    for (int64_t index = 1; index < threads; ++index) {
        others.emplace_back(part, index);
    }
    part(0);
    for (std::thread &other : others) {
        other.join();
    }
}

} // namespace
} // namespace rp

rp_status rp_predictor_create(rp_predictor **predictor, const rp_checkpoint *checkpoint,
                              int32_t threads) {
    return rp::guard([&] {
        rp::require(predictor, "predictor");
        *predictor = nullptr;
        rp::require(checkpoint, "checkpoint");
        *predictor = rp::make(*checkpoint, threads);
    });
}

void rp_predictor_free(rp_predictor *predictor) {
    delete predictor;
}

rp_status rp_predictor_run(float *returns, rp_predictor *predictor, const float *features,
                           int64_t rows, const int32_t *window_ends, int64_t windows) {
    return rp::guard([&] {
        rp::require(predictor, "predictor");
        rp::check_windows(returns, features, rows, window_ends, windows,
                          predictor->model.shape().time_steps);
        rp::run(returns, *predictor, features, window_ends, windows);
    });
}

rp_status rp_reference_predict(float *returns, const rp_checkpoint *checkpoint, const char *device,
                               const float *features, int64_t rows, const int32_t *window_ends,
                               int64_t windows) {
    return rp::guard([&] {
        rp::require(checkpoint, "checkpoint");
        rp::require(device, "device");
        rp::check_windows(returns, features, rows, window_ends, windows,
                          checkpoint->model.time_steps);
        rp::torch_plugin().reference_predict(returns, *checkpoint, device, features, rows,
                                             window_ends, windows);
    });
}
