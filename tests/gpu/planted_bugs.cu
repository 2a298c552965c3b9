// One bug for each tool of compute-sanitizer, to prove that the tool would find it: the argument
// names the tool. Exit status 0 says nothing; the tool's own exit status does.
#include <cstdio>
#include <cstring>

// memcheck: writes one element past the end.
__global__ void write_past_the_end(float *array, int count) {
    array[count] = 1.0f;
}

// racecheck: reads what another thread writes, with no barrier between.
__global__ void read_without_barrier(float *out) {
    __shared__ float shared[64];
    shared[threadIdx.x] = static_cast<float>(threadIdx.x);
    out[threadIdx.x] = shared[63 - threadIdx.x];
}

// initcheck: copies memory that nothing has written.
__global__ void copy_uninitialised(float *out, const float *in) {
    out[threadIdx.x] = in[threadIdx.x] + 1.0f;
}

// synccheck: half of each warp takes the other branch, past the barrier of all the block's threads.
__global__ void barrier_in_one_branch(float *out) {
    if (threadIdx.x % 32 < 16) {
        __syncthreads();
        out[threadIdx.x] = 2.0f;
    } else {
        out[threadIdx.x] = 1.0f;
    }
}

int main(int argc, char **argv) {
    const char *tool = argc > 1 ? argv[1] : "";
    float *out = nullptr, *in = nullptr;
    if (cudaMalloc(&out, 64 * sizeof(float)) != cudaSuccess ||
        cudaMalloc(&in, 64 * sizeof(float)) != cudaSuccess) {
        fprintf(stderr, "planted_bugs: no GPU memory\n");
        return 2;
    }
    if (strcmp(tool, "memcheck") == 0) {
        write_past_the_end<<<1, 1>>>(out, 64);
    } else if (strcmp(tool, "racecheck") == 0) {
        read_without_barrier<<<1, 64>>>(out);
    } else if (strcmp(tool, "initcheck") == 0) {
        copy_uninitialised<<<1, 64>>>(out, in);
    } else if (strcmp(tool, "synccheck") == 0) {
        barrier_in_one_branch<<<1, 64>>>(out);
    } else {
        fprintf(stderr, "usage: planted_bugs memcheck|racecheck|initcheck|synccheck\n");
        return 2;
    }
    cudaDeviceSynchronize();
    return 0;
}
