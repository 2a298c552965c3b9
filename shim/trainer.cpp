// Training, seen from C: validates, counts epochs and losses, and leaves the arithmetic to a
// Backend. Everything here is the same for every configuration.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <thread>

#include "backends.h"
#include "checkpoint.h"
#include "guard.h"
#include "kernels/random.h"
#include "model.h"
#include "ranks.h"
#include "torch_plugin.h"
#include "trainer.h"

namespace rp {
namespace {

int64_t steps_per_epoch(const rp_trainer &trainer) {
    return rp_steps_per_epoch(trainer.data->windows, trainer.spec.batch);
}

int64_t step_rows(const rp_trainer &trainer, int64_t step) {
    const int64_t first = step % steps_per_epoch(trainer) * trainer.spec.batch;
    return std::min(trainer.spec.batch, trainer.data->windows - first);
}

int64_t samples_before(const rp_trainer &trainer, int64_t step) {
    const int64_t per_epoch = steps_per_epoch(trainer);
    const int64_t last = step_rows(trainer, per_epoch - 1);
    return step / per_epoch * ((per_epoch - 1) * trainer.spec.batch + last) +
           step % per_epoch * trainer.spec.batch;
}

void check_data(const rp_data &data, const rp_model_options &model) {
    require(data.features, "data.features");
    require(data.targets, "data.targets");
    require(data.window_ends, "data.window_ends");
    if (data.windows < 2 || data.windows > INT32_MAX || data.rows > INT32_MAX) {
        throw error(RP_ERROR_ARGUMENT,
                    "%" PRId64 " windows over %" PRId64 " rows; training needs "
                    "at least 2 windows and at most 2^31 - 1 of each",
                    data.windows, data.rows);
    }
    for (int64_t w = 0; w < data.windows; ++w) {
        const int32_t end = data.window_ends[w];
        if (end < model.time_steps - 1 || end >= data.rows || !std::isfinite(data.targets[end])) {
            throw error(RP_ERROR_ARGUMENT,
                        "window %" PRId64 " ends at row %d; it must lie inside "
                        "[%d, %" PRId64 ") and its target be finite",
                        w, end, model.time_steps - 1, data.rows);
        }
    }
    for (int64_t i = 0; i < data.rows * model.features; ++i) {
        if (!std::isfinite(data.features[i])) {
            throw error(RP_ERROR_ARGUMENT, "feature %" PRId64 " of row %" PRId64 " is not finite",
                        i % model.features, i / model.features);
        }
    }
}

// The power of two nearest (in the logarithm) to the targets' standard deviation; 1 when constant.
double nearest_unit(const rp_data &data) {
    double sum = 0, squares = 0;
    for (int64_t w = 0; w < data.windows; ++w) {
        sum += data.targets[data.window_ends[w]];
    }
    const double mean = sum / static_cast<double>(data.windows);
    for (int64_t w = 0; w < data.windows; ++w) {
        const double difference = data.targets[data.window_ends[w]] - mean;
        squares += difference * difference;
    }
    const double sd = std::sqrt(squares / static_cast<double>(data.windows - 1));
    return sd > 1e-30 ? std::exp2(std::round(std::log2(sd))) : 1.0;
}

std::shared_ptr<const TrainingData> share_data(const rp_data &data, double unit) {
    auto shared = std::make_shared<TrainingData>(
        TrainingData{data.features, data.window_ends, data.rows, data.windows, unit, {}, nullptr});
    shared->targets.resize(static_cast<size_t>(data.rows));
    for (size_t i = 0; i < shared->targets.size(); ++i) {
        shared->targets[i] = data.targets[i] / static_cast<float>(unit);
    }
    return shared;
}

TrainerSpec check_options(const rp_trainer_options &options) {
    if (options.version != RP_OPTIONS_VERSION) {
        throw error(RP_ERROR_ARGUMENT,
                    "trainer options have version %u, expected %d; fill them "
                    "with rp_trainer_options_init first",
                    options.version, RP_OPTIONS_VERSION);
    }
    check_model_options(options.model);
    require(options.configuration, "configuration");
    if (options.batch < 2 || options.batch > 1 << 20) {
        throw error(RP_ERROR_ARGUMENT,
                    "batch is %" PRId64 "; it must be from 2 to 1048576 "
                    "(BatchNorm expects more than 1 value per channel when training)",
                    options.batch);
    }
    if (!(options.learning_rate > 0 && std::isfinite(options.learning_rate))) {
        throw error(RP_ERROR_ARGUMENT, "learning_rate is %g; it must be positive",
                    options.learning_rate);
    }
    for (const double beta : {options.beta1, options.beta2}) {
        if (!(beta >= 0 && beta < 1)) {
            throw error(RP_ERROR_ARGUMENT, "beta is %g; it must be in [0, 1)", beta);
        }
    }
    if (!(options.eps >= 0)) {
        throw error(RP_ERROR_ARGUMENT, "eps is %g; it must not be negative", options.eps);
    }
    int exponent = 0;
    if (options.target_unit != 0 &&
        (!(options.target_unit > 0) || std::frexp(options.target_unit, &exponent) != 0.5)) {
        throw error(RP_ERROR_ARGUMENT, "target_unit is %g; it must be a power of two, or 0",
                    options.target_unit);
    }
    const std::string name = options.configuration;
    if (options.ranks && name != "cpu" && name != "gpu" && name != "gpu-kernel") {
        throw error(RP_ERROR_ARGUMENT,
                    "configuration %s trains a model in one process; cpu, gpu and gpu-kernel can "
                    "share it among ranks",
                    name.c_str());
    }
    const int32_t cores = static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
    if (options.threads < 0 || options.threads > 1024) {
        throw error(RP_ERROR_ARGUMENT, "threads is %d; it must be from 0 to 1024", options.threads);
    }
    return {options.model,
            options.configuration,
            options.precision ? options.precision : "",
            options.batch,
            options.learning_rate,
            options.beta1,
            options.beta2,
            options.eps,
            options.seed,
            options.threads ? options.threads : cores,
            options.ranks ? options.ranks->ranks.get() : nullptr};
}

std::unique_ptr<Backend> make_backend(const TrainerSpec &spec, const TrainingData &data) {
    return spec.configuration == "cpu-fused" ? make_cpu_fused_backend(spec, data)
                                             : torch_plugin().make_backend(spec, data);
}

void fill_progress(rp_progress &progress, const rp_trainer &trainer) {
    const int64_t per_epoch = steps_per_epoch(trainer);
    progress.step = trainer.step;
    progress.steps_per_epoch = per_epoch;
    progress.epoch = trainer.step / per_epoch;
    progress.samples = samples_before(trainer, trainer.step);
    progress.skipped_steps = trainer.backend->skipped_steps();
    progress.peak_memory = trainer.backend->peak_memory();
    const double unit2 = trainer.data->target_unit * trainer.data->target_unit;
    const int64_t in_epoch = progress.samples - samples_before(trainer, progress.epoch * per_epoch);
    progress.loss = in_epoch > 0 ? trainer.epoch_loss_sum * unit2 / static_cast<double>(in_epoch)
                    : trainer.epoch_losses.empty() ? 0.0
                                                   : trainer.epoch_losses.back();
}

rp_checkpoint snapshot(const rp_trainer &trainer) {
    if (trainer.failed) {
        throw error(RP_ERROR_ARGUMENT, "this trainer's loss is no longer finite; it can't be "
                                       "saved. Continue from an earlier checkpoint");
    }
    rp_checkpoint checkpoint;
    checkpoint.model = trainer.spec.model;
    trainer.backend->store(checkpoint.state);
    checkpoint.state.step = trainer.step;
    checkpoint.seed = trainer.spec.seed;
    checkpoint.batch = trainer.spec.batch;
    checkpoint.windows = trainer.data->windows;
    checkpoint.target_unit = trainer.data->target_unit;
    checkpoint.epoch_loss_sum = trainer.epoch_loss_sum;
    checkpoint.epoch_losses = trainer.epoch_losses;
    checkpoint.metadata["training.configuration"] = trainer.spec.configuration;
    checkpoint.metadata["training.precision"] = trainer.backend->precision();
    char rate[32];
    std::snprintf(rate, sizeof rate, "%.17g", trainer.spec.learning_rate);
    checkpoint.metadata["training.learning_rate"] = rate;
    checkpoint_describe(checkpoint);
    return checkpoint;
}

} // namespace

void count_steps(rp_trainer &trainer, const std::vector<float> &losses) {
    const int64_t per_epoch = steps_per_epoch(trainer);
    for (const double loss : losses) {
        const int64_t in_epoch = trainer.step % per_epoch;
        if (!std::isfinite(loss)) {
            throw error(RP_ERROR_NUMERIC,
                        "the loss of epoch %" PRId64 ", step %" PRId64 " of %" PRId64
                        " is %g; lower the learning rate or look at this batch's rows",
                        trainer.step / per_epoch + 1, in_epoch + 1, per_epoch, loss);
        }
        trainer.epoch_loss_sum += loss * static_cast<double>(step_rows(trainer, trainer.step));
        ++trainer.step;
        if (in_epoch + 1 == per_epoch) {
            const int64_t samples = samples_before(trainer, per_epoch);
            trainer.epoch_losses.push_back(trainer.epoch_loss_sum * trainer.data->target_unit *
                                           trainer.data->target_unit /
                                           static_cast<double>(samples));
            trainer.epoch_loss_sum = 0;
        }
    }
}

void check_runnable(const rp_trainer &trainer, int64_t steps) {
    if (trainer.failed) {
        throw error(RP_ERROR_ARGUMENT, "this trainer has failed before; create another");
    }
    if (steps < 1) {
        throw error(RP_ERROR_ARGUMENT, "steps is %" PRId64 "; it must be positive", steps);
    }
}

void run(rp_trainer &trainer, int64_t steps) {
    const int64_t per_epoch = steps_per_epoch(trainer);
    const int64_t count = std::min(steps, per_epoch - trainer.step % per_epoch);
    std::vector<float> losses(static_cast<size_t>(count));
    trainer.failed = true; // until the device has answered
    trainer.backend->train(trainer.step, count, losses.data());
    count_steps(trainer, losses);
    trainer.failed = false;
}

namespace {

// A checkpoint can be continued only by the training that it came from.
void check_resumable(const rp_trainer &trainer, const rp_checkpoint &checkpoint) {
    auto same = [](const char *name, double mine, double theirs) {
        if (mine != theirs) {
            throw error(RP_ERROR_ARGUMENT,
                        "the checkpoint was trained with %s %.9g, this trainer "
                        "has %.9g; they must be equal to continue",
                        name, theirs, mine);
        }
    };
    const rp_model_options &mine = trainer.spec.model, &theirs = checkpoint.model;
    same("features", mine.features, theirs.features);
    same("time_steps", mine.time_steps, theirs.time_steps);
    same("hidden", mine.hidden, theirs.hidden);
    same("layers", mine.layers, theirs.layers);
    same("dropout", mine.dropout, theirs.dropout);
    same("batch", static_cast<double>(trainer.spec.batch), static_cast<double>(checkpoint.batch));
    same("windows", static_cast<double>(trainer.data->windows),
         static_cast<double>(checkpoint.windows));
    same("seed", static_cast<double>(trainer.spec.seed), static_cast<double>(checkpoint.seed));
    same("target_unit", trainer.data->target_unit, checkpoint.target_unit);
}

} // namespace
} // namespace rp

void rp_trainer_options_init(rp_trainer_options *options) {
    if (options) {
        *options = {};
        options->version = RP_OPTIONS_VERSION;
        rp_model_options_init(&options->model);
        options->configuration = "cpu";
        options->batch = 512;
        options->learning_rate = 1e-3;
        options->beta1 = 0.9;
        options->beta2 = 0.999;
        options->eps = 1e-8;
        options->seed = 1;
    }
}

rp_status rp_trainers_create(rp_trainer **trainers, const rp_trainer_options *options,
                             int64_t count, const rp_data *data) {
    return rp::guard([&] {
        rp::require(trainers, "trainers");
        std::fill_n(trainers, std::max<int64_t>(count, 0), nullptr);
        rp::require(options, "options");
        rp::require(data, "data");
        if (count < 1) {
            throw rp::error(RP_ERROR_ARGUMENT, "count is %" PRId64 "; it must be positive", count);
        }
        std::vector<std::unique_ptr<rp_trainer>> made;
        for (int64_t i = 0; i < count; ++i) {
            made.push_back(std::make_unique<rp_trainer>());
            made.back()->spec = rp::check_options(options[i]);
            if (options[i].target_unit != options[0].target_unit ||
                options[i].model.features != options[0].model.features ||
                options[i].model.time_steps != options[0].model.time_steps) {
                throw rp::error(RP_ERROR_ARGUMENT,
                                "trainers 0 and %" PRId64 " have other features, time steps or "
                                "target units, so they can't share their data",
                                i);
            }
        }
        rp::check_data(*data, options->model);
        const auto shared = rp::share_data(
            *data, options->target_unit != 0 ? options->target_unit : rp::nearest_unit(*data));
        for (int64_t i = 0; i < count; ++i) {
            rp_trainer &trainer = *made[static_cast<size_t>(i)];
            trainer.data = shared;
            trainer.backend = rp::make_backend(trainer.spec, *shared);
            trainer.note = trainer.backend->note();
            trainer.backend->load(rp::initial_state(trainer.spec.model, trainer.spec.seed));
        }
        for (int64_t i = 0; i < count; ++i) {
            trainers[i] = made[static_cast<size_t>(i)].release();
        }
    });
}

rp_status rp_trainer_create(rp_trainer **trainer, const rp_trainer_options *options,
                            const rp_data *data) {
    return rp_trainers_create(trainer, options, 1, data);
}

void rp_trainer_free(rp_trainer *trainer) {
    delete trainer;
}

rp_status rp_trainer_run(rp_trainer *trainer, int64_t steps, rp_progress *progress) {
    return rp::guard([&] {
        rp::require(trainer, "trainer");
        rp::check_runnable(*trainer, steps);
        rp::run(*trainer, steps);
        if (progress) {
            rp::fill_progress(*progress, *trainer);
        }
    });
}

rp_status rp_trainer_progress(const rp_trainer *trainer, rp_progress *progress) {
    return rp::guard([&] {
        rp::require(trainer, "trainer");
        rp::require(progress, "progress");
        rp::fill_progress(*progress, *trainer);
    });
}

const char *rp_trainer_note(const rp_trainer *trainer) {
    return trainer ? trainer->note.c_str() : "";
}

rp_status rp_trainer_epoch_losses(const double **losses, int64_t *count,
                                  const rp_trainer *trainer) {
    return rp::guard([&] {
        rp::require(losses, "losses");
        rp::require(count, "count");
        rp::require(trainer, "trainer");
        *losses = trainer->epoch_losses.data();
        *count = static_cast<int64_t>(trainer->epoch_losses.size());
    });
}

rp_status rp_trainer_step_windows(int64_t *windows, int64_t *count, int64_t capacity,
                                  const rp_trainer *trainer, int64_t step) {
    return rp::guard([&] {
        rp::require(windows, "windows");
        rp::require(count, "count");
        rp::require(trainer, "trainer");
        if (step < 0 || capacity < 0) {
            throw rp::error(RP_ERROR_ARGUMENT, "step or capacity is negative");
        }
        const int64_t per_epoch = rp::steps_per_epoch(*trainer);
        const rp_order_key key =
            rp_order_key_make(static_cast<uint32_t>(trainer->data->windows), trainer->spec.seed,
                              static_cast<uint32_t>(step / per_epoch));
        *count = rp::step_rows(*trainer, step);
        for (int64_t row = 0; row < std::min(*count, capacity); ++row) {
            windows[row] =
                rp_order(static_cast<uint32_t>(step % per_epoch * trainer->spec.batch + row), &key);
        }
    });
}

rp_status rp_trainer_snapshot(rp_checkpoint **checkpoint, const rp_trainer *trainer) {
    return rp::guard([&] {
        rp::require(checkpoint, "checkpoint");
        *checkpoint = nullptr;
        rp::require(trainer, "trainer");
        *checkpoint = new rp_checkpoint(rp::snapshot(*trainer));
    });
}

rp_status rp_trainer_save(const rp_trainer *trainer, const char *path, const rp_metadata *metadata,
                          int64_t metadata_count) {
    return rp::guard([&] {
        rp::require(trainer, "trainer");
        rp::require(path, "path");
        const auto extra = rp::metadata_map(metadata, metadata_count);
        rp::file_replace(path, rp::checkpoint_format(rp::snapshot(*trainer), extra));
    });
}

rp_status rp_trainer_resume(rp_trainer *trainer, const rp_checkpoint *checkpoint) {
    return rp::guard([&] {
        rp::require(trainer, "trainer");
        rp::require(checkpoint, "checkpoint");
        rp::check_resumable(*trainer, *checkpoint);
        trainer->backend->load(checkpoint->state);
        trainer->step = checkpoint->state.step;
        trainer->epoch_loss_sum = checkpoint->epoch_loss_sum;
        trainer->epoch_losses = checkpoint->epoch_losses;
        trainer->failed = false;
    });
}
