// Which cases, and why these: eager mode's kernels change their order of summation with the number
// of rows (below 16, not a multiple of 64, above 128 blocks), of channels (powers of two, up to 32)
// and of elements a channel (32 ... 512), so every side of every such border is in the table; ours
// also with the channels that a GPU has room for at once.
#include "cases.h"

namespace rp_ops {
namespace {

using c10::ScalarType;
using Shape = std::vector<int64_t>;

struct Types {
    ScalarType data, parameters;
};

constexpr Types FLOAT32 = {ScalarType::Float, ScalarType::Float};
constexpr Types FLOAT64 = {ScalarType::Double, ScalarType::Double};
constexpr Types SIXTEEN_BIT[] = {{ScalarType::Half, ScalarType::Half},
                                 {ScalarType::Half, ScalarType::Float},
                                 {ScalarType::BFloat16, ScalarType::BFloat16},
                                 {ScalarType::BFloat16, ScalarType::Float}};
constexpr Mode TRAIN_AND_EVAL[] = {Mode::TRAIN, Mode::EVAL};
constexpr Mode OTHER_MODES[] = {Mode::TRAIN_UNTRACKED, Mode::TRAIN_CUMULATIVE, Mode::TRAIN_FROZEN,
                                Mode::EVAL_FROZEN, Mode::EVAL_WEIGHTS_ONLY};

bool trains(Mode mode) {
    return mode != Mode::EVAL && mode != Mode::EVAL_FROZEN && mode != Mode::EVAL_WEIGHTS_ONLY;
}

int64_t values_per_channel(const Shape &shape) {
    int64_t values = shape[0];
    for (size_t d = 2; d < shape.size(); ++d) {
        values *= shape[d];
    }
    return values;
}

class Table {
  public:
    // With and without weight and bias.
    void add(const Shape &shape, Types types, Layout layout, Mode mode,
             Values values = Values::NORMAL) {
        for (bool affine : {true, false}) {
            add_one(shape, types, layout, affine, mode, values);
        }
    }

    void add_train_and_eval(const Shape &shape, Types types, Layout layout,
                            Values values = Values::NORMAL) {
        for (Mode mode : TRAIN_AND_EVAL) {
            add(shape, types, layout, mode, values);
        }
    }

    std::vector<Case> take() { return std::move(cases_); }

  private:
    void add_one(const Shape &shape, Types types, Layout layout, bool affine, Mode mode,
                 Values values) {
        const bool undefined_variance = trains(mode) && values_per_channel(shape) == 1;
        const bool needs_parameters = mode == Mode::TRAIN_FROZEN || mode == Mode::EVAL_FROZEN ||
                                      mode == Mode::EVAL_WEIGHTS_ONLY;
        if (undefined_variance || (needs_parameters && !affine)) {
            return;
        }
        cases_.push_back({shape, types.data, types.parameters, layout, affine, mode, values});
    }

    std::vector<Case> cases_;
};

void add_rows(Table &table) {
    for (int64_t rows :
         {1, 2, 3, 10, 15, 16, 17, 63, 65, 100, 184, 256, 512, 1000, 1792, 1793, 4096, 4097}) {
        for (int64_t channels : {1, 3, 32, 33, 64, 65, 100, 1000}) {
            table.add_train_and_eval({rows, channels}, FLOAT32, Layout::CONTIGUOUS);
        }
    }
    for (const Shape &shape : {Shape{65536, 64}, Shape{70001, 36}, Shape{40003, 72},
                               Shape{40000, 257}, Shape{16500, 33}, Shape{2, 524288}}) {
        table.add_train_and_eval(shape, FLOAT32, Layout::CONTIGUOUS);
    }
    for (Types types : SIXTEEN_BIT) {
        for (int64_t rows : {2, 17, 100, 512, 1000, 4097}) {
            for (int64_t channels : {1, 3, 33, 64, 72, 257}) {
                table.add_train_and_eval({rows, channels}, types, Layout::CONTIGUOUS);
            }
        }
        table.add_train_and_eval({65536, 64}, types, Layout::CONTIGUOUS);
        table.add_train_and_eval({33001, 100}, types, Layout::CONTIGUOUS);
    }
}

void add_images(Table &table) {
    const Shape shapes[] = {{2, 3, 5, 7},     {3, 33, 1, 1},    {16, 5, 17, 19}, {32, 1, 28, 28},
                            {2, 4, 1, 33},    {4, 64, 7, 7},    {8, 16, 32, 32}, {4, 64, 56, 56},
                            {1, 8, 128, 128}, {64, 32, 14, 14}, {16, 2, 512, 3}, {3, 40, 20, 24},
                            {5, 133, 18, 20}, {20, 70, 56, 56}};
    for (const Shape &shape : shapes) {
        for (Layout layout : {Layout::CONTIGUOUS, Layout::CHANNELS_LAST}) {
            table.add_train_and_eval(shape, FLOAT32, layout);
            for (Types types : SIXTEEN_BIT) {
                table.add_train_and_eval(shape, types, layout);
            }
        }
    }
    for (const Shape &shape : {Shape{6, 5, 13}, Shape{5, 7, 11}, Shape{8, 64, 100}, Shape{4, 3, 1},
                               Shape{2, 16, 1024}, Shape{5, 6, 4096}}) {
        table.add_train_and_eval(shape, FLOAT32, Layout::CONTIGUOUS);
        for (Types types : SIXTEEN_BIT) {
            table.add_train_and_eval(shape, types, Layout::CONTIGUOUS);
        }
    }
    for (Layout layout : {Layout::CONTIGUOUS, Layout::CHANNELS_LAST}) {
        table.add_train_and_eval({2, 6, 4, 5, 8}, FLOAT32, layout);
        table.add_train_and_eval({3, 1, 4, 5, 8}, FLOAT32, layout);
    }
}

void add_modes(Table &table) {
    for (Mode mode : OTHER_MODES) {
        for (const Shape &shape : {Shape{10, 33}, Shape{512, 64}, Shape{4097, 65}}) {
            table.add(shape, FLOAT32, Layout::CONTIGUOUS, mode);
        }
        for (Layout layout : {Layout::CONTIGUOUS, Layout::CHANNELS_LAST}) {
            table.add({8, 16, 20, 20}, FLOAT32, layout, mode);
            table.add({8, 16, 20, 20}, SIXTEEN_BIT[1], layout, mode);
        }
    }
}

void add_layouts(Table &table) {
    for (Layout layout :
         {Layout::SLICED, Layout::TRANSPOSED, Layout::EXPANDED, Layout::GRADIENT_EXPANDED}) {
        for (const Shape &shape : {Shape{100, 33}, Shape{512, 64}, Shape{6, 8, 10, 10}}) {
            table.add_train_and_eval(shape, FLOAT32, layout);
            table.add_train_and_eval(shape, SIXTEEN_BIT[0], layout);
        }
    }
    for (const Shape &shape : {Shape{100, 33}, Shape{6, 8, 10, 10}, Shape{2, 3, 4, 5, 6}}) {
        table.add_train_and_eval(shape, FLOAT64, Layout::CONTIGUOUS);
    }
    table.add_train_and_eval({0, 64}, FLOAT32, Layout::CONTIGUOUS);
    table.add_train_and_eval({0, 3, 8, 8}, FLOAT32, Layout::CONTIGUOUS);
}

void add_special_values(Table &table) {
    for (const Shape &shape :
         {Shape{2, 12}, Shape{10, 24}, Shape{17, 24}, Shape{100, 36}, Shape{512, 64},
          Shape{4097, 33}, Shape{33001, 33}, Shape{65536, 32}}) {
        table.add_train_and_eval(shape, FLOAT32, Layout::CONTIGUOUS, Values::SPECIAL);
        table.add_train_and_eval(shape, SIXTEEN_BIT[1], Layout::CONTIGUOUS, Values::SPECIAL);
        table.add_train_and_eval(shape, SIXTEEN_BIT[3], Layout::CONTIGUOUS, Values::SPECIAL);
    }
    for (const Shape &shape : {Shape{6, 24, 20, 20}, Shape{3, 12, 40, 40}, Shape{6, 90, 20, 20}}) {
        for (Layout layout : {Layout::CONTIGUOUS, Layout::CHANNELS_LAST}) {
            table.add_train_and_eval(shape, FLOAT32, layout, Values::SPECIAL);
            table.add_train_and_eval(shape, SIXTEEN_BIT[1], layout, Values::SPECIAL);
        }
    }
}

} // namespace

const std::vector<Case> &cases() {
    static const std::vector<Case> all = [] {
        Table table;
        add_rows(table);
        add_images(table);
        add_modes(table);
        add_layouts(table);
        add_special_values(table);
        return table.take();
    }();
    return all;
}

} // namespace rp_ops
