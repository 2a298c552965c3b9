// A training state with everything needed to run or continue it, in memory.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "backend.h"

struct rp_checkpoint {
    rp_model_options model;
    rp::State state; // head parameters in target units
    uint64_t seed = 0;
    int64_t batch = 0;
    int64_t windows = 0; // W of the training data
    double target_unit = 1;
    double epoch_loss_sum = 0;        // over the samples of the unfinished epoch, in target units^2
    std::vector<double> epoch_losses; // of the complete epochs, in returns^2
    std::map<std::string, std::string> metadata; // all of it, the library's keys included
};

namespace rp {

// The bytes of `checkpoint` as a file; `extra` is added to its metadata.
std::string checkpoint_format(const rp_checkpoint &checkpoint,
                              const std::map<std::string, std::string> &extra);

// The reverse, validated: throws Error RP_ERROR_FORMAT naming `path` and what is wrong.
rp_checkpoint checkpoint_parse(std::string file, const std::string &path);

// Rewrites checkpoint.metadata's own keys ("model.", "training.", "checkpoint.") from its fields.
void checkpoint_describe(rp_checkpoint &checkpoint);

// The caller's metadata as a map; refuses NULL and the library's own prefixes.
std::map<std::string, std::string> metadata_map(const rp_metadata *metadata, int64_t count);

// Whole-file input and output with errors that name the path. Writing replaces atomically: a
// temporary name in the same folder, fsync, rename, fsync of the folder.
std::string file_read(const std::string &path);
void file_replace(const std::string &path, const std::string &bytes);

} // namespace rp
