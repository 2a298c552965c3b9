// rp::bn_leaky_relu from C++, as the shim uses it: no Python anywhere.
#include "rp_ops/bn_leaky_relu.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "rp_ops/verify.h"

#ifdef RP_HAVE_CUDA
#include "kernels/bn_leaky_relu_parts.h"
#endif

TEST(BnLeakyRelu, abi_version_of_the_library_is_the_headers) {
    EXPECT_EQ(rp_ops::abi_version(), rp_ops::RP_OPS_ABI_VERSION);
}

TEST(BnLeakyRelu, called_from_cpp_has_the_pairs_bits_and_gradients) {
    const at::Tensor input = at::randn({32, 5}).requires_grad_(true);
    const at::Tensor weight = at::randn({5}).requires_grad_(true);
    const at::Tensor bias = at::randn({5}).requires_grad_(true);
    const at::Tensor grad = at::randn({32, 5});
    at::Tensor mean[2] = {at::zeros({5}), at::zeros({5})};
    at::Tensor var[2] = {at::ones({5}), at::ones({5})};
    const at::Tensor expected = at::leaky_relu(
        at::batch_norm(input, weight, bias, mean[0], var[0], true, 0.1, 1e-5, false), 0.01);
    const at::Tensor actual =
        rp_ops::bn_leaky_relu(input, weight, bias, mean[1], var[1], true, 0.1, 1e-5, 0.01);
    EXPECT_TRUE(at::equal(expected, actual));
    EXPECT_TRUE(at::equal(mean[0], mean[1]));
    EXPECT_TRUE(at::equal(var[0], var[1]));
    const auto leaves = {input, weight, bias};
    const auto expected_grads = torch::autograd::grad({expected}, leaves, {grad});
    const auto actual_grads = torch::autograd::grad({actual}, leaves, {grad});
    for (size_t i = 0; i < expected_grads.size(); ++i) {
        EXPECT_TRUE(at::equal(expected_grads[i], actual_grads[i])) << "gradient " << i;
    }
}

TEST(Verify, table_has_five_hundred_cases_and_the_first_agrees) {
    EXPECT_GE(rp_ops::verify_case_count(), 500);
    for (const auto &output : rp_ops::verify_case(0, c10::kCPU, false).outputs) {
        EXPECT_EQ(output.differing_elements, 0) << output.name;
        EXPECT_EQ(output.max_difference, 0.0) << output.name;
    }
}

TEST(Verify, perturbed_case_differs_in_one_element) {
    const rp_ops::VerifyResult result = rp_ops::verify_case(0, c10::kCPU, true);
    ASSERT_FALSE(result.outputs.empty());
    EXPECT_EQ(result.outputs[0].name, "output");
    EXPECT_EQ(result.outputs[0].differing_elements, 1);
}

TEST(Verify, case_out_of_range_is_refused) {
    EXPECT_THROW(rp_ops::verify_case(-1, c10::kCPU, false), c10::Error);
    EXPECT_THROW(rp_ops::verify_case(rp_ops::verify_case_count(), c10::kCPU, false), c10::Error);
}

#ifdef RP_HAVE_CUDA
// Launches of PyTorch 2.11's channels-last kernels, as a profiler shows them.
TEST(RowGrid, of_known_shapes_is_eager_modes) {
    const struct {
        int64_t rows;
        int channels, block_rows, blocks;
    } known[] = {{100, 64, 4, 1},    {256, 64, 16, 1},   {1024, 64, 16, 1},
                 {2048, 256, 16, 8}, {4096, 65, 16, 16}, {65536, 64, 16, 128},
                 {4096, 3, 256, 1},  {1024, 1, 64, 1},   {1048576, 64, 16, 128}};
    for (const auto &k : known) {
        const rp_kernels::RowGrid grid = rp_kernels::row_grid(k.rows, k.channels);
        EXPECT_EQ(grid.block_rows, k.block_rows) << k.rows << " x " << k.channels;
        EXPECT_EQ(grid.blocks, k.blocks) << k.rows << " x " << k.channels;
    }
}
#endif
