// Host side of the training kernel: which shapes it takes, how they lie on the device, the launch.
#include "lstm_train.h"

#include <algorithm>
#include <cmath>

#include "lstm_train_kernels.h"
#include "lstm_train_layout.cuh"

using namespace rp_lstm;

namespace {

constexpr size_t kDynamicSharedBytes = 227 * 1024 - kBlockSharedBytes; // of a block on Hopper
constexpr int kMaxBatch = 1 << 14; // a tile takes 300 KB of device memory or more

const void *find_kernel(const rp_lstm_train_shape &shape) {
    switch (shape.precision) {
    case RP_LSTM_FP16:
        return lstm_train_kernel_fp16(shape.hidden, shape.layers);
    case RP_LSTM_BF16:
        return lstm_train_kernel_bf16(shape.hidden, shape.layers);
    case RP_LSTM_TF32:
        return lstm_train_kernel_tf32(shape.hidden, shape.layers);
    case RP_LSTM_FP32:
        return lstm_train_kernel_fp32(shape.hidden, shape.layers);
    }
    return nullptr;
}

// use(Layout()) with a layout of the shape's sizes.
template <class Use> auto with_layout(const rp_lstm_train_shape &shape, const Use &use) {
    const auto of_hidden = [&](auto operand) {
        using Op = decltype(operand);
        return shape.hidden == 64 ? use(Layout<64, Op>()) : use(Layout<32, Op>());
    };
    switch (shape.precision) {
    case RP_LSTM_TF32:
        return of_hidden(Tf32());
    case RP_LSTM_FP32:
        return of_hidden(Fp32());
    default:
        return of_hidden(Fp16()); // or Bf16: the same
    }
}

// As few segments as fit in shared memory, equally long; the first has what is left.
template <class L> void plan_segments(rp_lstm_train_plan *plan, const rp_lstm_train_shape &shape) {
    int steps = std::min(shape.time_steps, kMaxSegment);
    while (SharedPlan<L>::bytes(steps, shape.layers) > kDynamicSharedBytes) {
        --steps;
    }
    plan->segments = (shape.time_steps + steps - 1) / steps;
    plan->segment_steps = (shape.time_steps + plan->segments - 1) / plan->segments;
    plan->shared_bytes = SharedPlan<L>::bytes(plan->segment_steps, shape.layers);
}

// Pieces of a block that do not stay in its shared memory.
int offloads_of(const rp_lstm_train_plan &plan) {
    return (plan.tiles + plan.clusters - 1) / plan.clusters * plan.segments - 1;
}

// Pairs of weights dealt evenly to the blocks, whole warps, at most one a thread.
template <class L> int share_of(const rp_lstm_train_plan &plan, const rp_lstm_train_shape &shape) {
    const int pairs = L::partial_pairs(shape.features, shape.layers);
    const int threads = plan.clusters * shape.layers * 32; // a warp of each block
    return std::min((pairs + threads - 1) / threads * 32, (int)L::kThreads);
}

template <class L>
Workspace workspace_of(const rp_lstm_train_plan &plan, const rp_lstm_train_shape &shape) {
    Workspace w = {};
    size_t end = 0;
    const auto take = [&end](size_t bytes) {
        const size_t start = end;
        end += (bytes + 255) / 256 * 256;
        return start;
    };
    const size_t tiles = plan.tiles, clusters = std::min(plan.tiles, plan.clusters);
    const size_t parts = 2 * shape.layers - 1;
    w.forward_weights = take(4 * L::kPlanes * (L::kInputPartWords + parts * L::kPartWords));
    w.backward_weights = take(4 * L::kPlanes * 2 * shape.layers * L::kPartWords);
    w.statistics = take((clusters + 1) * L::kHidden * sizeof(float2));
    w.sums = take((clusters + 1) * L::kHidden * sizeof(float2));
    w.head = take(clusters * (L::kHidden + 2) * sizeof(float));
    w.bias = take(clusters * shape.layers * L::kThreads * sizeof(float));
    w.partial = take(clusters * L::partial_pairs(shape.features, shape.layers) * sizeof(float2));
    w.cells = take(tiles * shape.layers * kCellScratch * L::kThreads * sizeof(float2));
    w.slots = take(clusters * offloads_of(plan) * shape.layers * plan.segment_steps *
                   SharedPlan<L>::kSlotBytes);
    w.bytes = end;
    return w;
}

Workspace workspace_of(const rp_lstm_train_plan &plan, const rp_lstm_train_shape &shape) {
    return with_layout(shape,
                       [&](auto layout) { return workspace_of<decltype(layout)>(plan, shape); });
}

size_t places_bytes(const rp_lstm_train_shape &shape) {
    return with_layout(shape, [&](auto layout) {
        return sizeof(PairPlace) * decltype(layout)::partial_pairs(shape.features, shape.layers);
    });
}

cudaLaunchConfig_t launch_config(const rp_lstm_train_shape &shape, const rp_lstm_train_plan &plan,
                                 int models, cudaLaunchAttribute (&attributes)[2]) {
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {(unsigned)shape.layers, 1, 1};
    attributes[1].id = cudaLaunchAttributeCooperative;
    attributes[1].val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(plan.clusters * shape.layers), (unsigned)models);
    config.blockDim = dim3((unsigned)(4 * shape.hidden));
    config.dynamicSmemBytes = plan.shared_bytes;
    config.attrs = attributes;
    config.numAttrs = 2;
    return config;
}

// Clusters of the kernel that the device holds at once.
cudaError_t resident_clusters(int *resident, const rp_lstm_train_shape &shape,
                              const rp_lstm_train_plan &plan, const void *kernel) {
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t config = launch_config(shape, plan, 1, attributes);
    config.numAttrs = 1;
    return cudaOccupancyMaxActiveClusters(resident, kernel, &config);
}

// Room for sums over a block's pieces, where it has several and no cluster loses its place.
cudaError_t plan_carried_sums(rp_lstm_train_plan *plan, const rp_lstm_train_shape &shape,
                              const void *kernel) {
    rp_lstm_train_plan carrying = *plan;
    carrying.carries_sums = 1;
    carrying.shared_bytes = with_layout(shape, [&](auto layout) {
        return SharedPlan<decltype(layout)>::bytes(plan->segment_steps, shape.layers, true);
    });
    if (offloads_of(*plan) == 0 || carrying.shared_bytes == plan->shared_bytes ||
        carrying.shared_bytes > kDynamicSharedBytes) {
        return cudaSuccess;
    }
    int resident = 0;
    const cudaError_t error = resident_clusters(&resident, shape, carrying, kernel);
    if (error == cudaSuccess && resident >= plan->clusters * plan->models_per_launch) {
        *plan = carrying;
    }
    return error;
}

// Counters; fragments, of which those of x's unused features and of layer 0's dx stay zero; and the
// stamp of the step before on the numbers that tiles exchange.
cudaError_t prepare_workspace(const Launch &launch, int models, cudaStream_t stream) {
    const rp_lstm_train_plan &plan = launch.plan;
    uint8_t *counters = (uint8_t *)launch.p.workspace;
    uint8_t *memory = counters + launch.models;
    const auto fill = [&](size_t from, size_t bytes, int value) {
        return cudaMemset2DAsync(memory + from, plan.model_bytes, value, bytes, models, stream);
    };
    const Workspace &w = launch.workspace;
    cudaError_t error = cudaMemsetAsync(counters, 0, models * kCounterBytes, stream);
    if (error == cudaSuccess) {
        error = fill(w.forward_weights, w.statistics - w.forward_weights, 0);
    }
    if (error == cudaSuccess) {
        error = fill(w.statistics, w.head - w.statistics, (int)(launch.p.first_step + 3) & 3);
    }
    return error;
}

} // namespace

int rp_lstm_train_supported(const rp_lstm_train_shape *shape, const char **reason) {
    *reason = nullptr;
    if (shape->time_steps < 1 || shape->time_steps > 64) {
        *reason = "the training kernel takes 1 to 64 time steps";
    } else if (shape->features < 1 || shape->features > 32) {
        *reason = "the training kernel takes 1 to 32 features";
    } else if (shape->layers < 1 || shape->layers > 2) {
        *reason = "the training kernel takes 1 or 2 layers";
    } else if (shape->hidden != 32 && shape->hidden != 64) {
        *reason = "the training kernel takes hidden size 32 or 64: the weights of a larger one do "
                  "not fit in a multiprocessor's registers";
    } else if (shape->batch < 1 || shape->batch > kMaxBatch) {
        *reason = "the training kernel takes batches of 1 to 16384";
    }
    return *reason == nullptr;
}

int64_t rp_lstm_train_parameter_count(const rp_lstm_train_shape *shape) {
    return parameter_count(shape->features, shape->hidden, shape->layers);
}

float rp_lstm_train_first_scale(const rp_lstm_train_shape *shape) {
    return with_layout(*shape, [&](auto layout) {
        return first_loss_scale<typename decltype(layout)::Operand>(shape->batch);
    });
}

cudaError_t rp_lstm_train_plan_make(rp_lstm_train_plan *plan, const rp_lstm_train_shape *shape) {
    const char *reason;
    if (!rp_lstm_train_supported(shape, &reason) || shape->models < 1) {
        return cudaErrorInvalidValue;
    }
    *plan = {};
    plan->tiles = (shape->batch + kRows - 1) / kRows;
    with_layout(*shape, [&](auto layout) { plan_segments<decltype(layout)>(plan, *shape); });
    const void *kernel = find_kernel(*shape);
    plan->clusters = 1;
    // Of the kernel, whatever the plan: others may be planned before this one is launched.
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)kDynamicSharedBytes);
    int resident = 0;
    if (error == cudaSuccess) {
        error = resident_clusters(&resident, *shape, *plan, kernel);
    }
    if (error != cudaSuccess) {
        return error;
    }
    if (resident < 1) {
        return cudaErrorCooperativeLaunchTooLarge;
    }
    // As many models as have all their tiles on the device at once; a model that has not is faster
    // alone than beside others. Then equally many in each launch.
    const int most = std::max(1, resident / plan->tiles);
    const int launches = (shape->models + most - 1) / most;
    plan->models_per_launch = (shape->models + launches - 1) / launches;
    plan->clusters = std::min(resident / plan->models_per_launch, kMaxClusters);
    error = plan_carried_sums(plan, *shape, kernel);
    if (error != cudaSuccess) {
        return error;
    }
    plan->model_bytes = workspace_of(*plan, *shape).bytes;
    plan->workspace_bytes =
        plan->models_per_launch * (kCounterBytes + plan->model_bytes) + places_bytes(*shape) + 256;
    return cudaSuccess;
}

cudaError_t rp_launch_lstm_train(const rp_lstm_train_params *params, const rp_lstm_train_plan *plan,
                                 cudaStream_t stream) {
    const rp_lstm_train_shape &shape = params->shape;
    Launch launch = {};
    launch.p = *params;
    launch.plan = *plan;
    launch.workspace = workspace_of(*plan, shape);
    launch.share =
        with_layout(shape, [&](auto layout) { return share_of<decltype(layout)>(*plan, shape); });
    launch.offloads = offloads_of(*plan);
    launch.places = plan->models_per_launch * kCounterBytes;
    launch.models = launch.places + places_bytes(shape);
    launch.adam = {(float)params->beta1,    (float)(1.0 - params->beta1),
                   (float)params->beta2,    (float)(1.0 - params->beta2),
                   (float)params->adam_eps, std::log(params->beta1),
                   std::log(params->beta2)};
    const void *kernel = find_kernel(shape);
    for (int first = 0; first < shape.models; first += plan->models_per_launch) {
        const int models = std::min(plan->models_per_launch, shape.models - first);
        launch.model = first;
        cudaError_t error = prepare_workspace(launch, models, stream);
        if (error != cudaSuccess) {
            return error;
        }
        cudaLaunchAttribute attributes[2];
        cudaLaunchConfig_t config = launch_config(shape, *plan, models, attributes);
        config.stream = stream;
        void *arguments[] = {&launch};
        error = cudaLaunchKernelExC(&config, kernel, arguments);
        if (error != cudaSuccess) {
            return error;
        }
    }
    return cudaSuccess;
}
