// The model's parameters as one flat vector: names, shapes and offsets, in PyTorch's order
// (lstm.weight_ih_l0 [4H][F], weight_hh_l0 [4H][H], bias_ih_l0, bias_hh_l0, layer 1 ..., then
// head.weight [1][H], head.bias [1]). Gates of a row block are i, f, g, o.
#pragma once

#include "backend.h"

namespace rp {

struct Parameter {
    std::string name;
    std::vector<int64_t> shape;
    int64_t offset, size;
    bool head; // saved in returns, trained in target units
};

// Throws RP_ERROR_ARGUMENT, naming the field, when an option is out of range.
void check_model_options(const rp_model_options &options);

std::vector<Parameter> model_parameters(const rp_model_options &options);
int64_t parameter_count(const std::vector<Parameter> &parameters);

// Fresh state: every parameter uniform in +-1/sqrt(H) (the distribution of torch.nn.LSTM and
// torch.nn.Linear), a function of the seed and the parameter's index alone.
State initial_state(const rp_model_options &options, uint64_t seed);

} // namespace rp
