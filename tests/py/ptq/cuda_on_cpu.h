// Runs count_values.cu on the CPU: a thread of the system for each thread of a block, one block
// after the other. What the GPU alone decides, such as speed and vector loads, it does not show.

#include <algorithm>
#include <barrier>
#include <cstring>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__ static  // one block at a time

using std::max;
using std::min;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct Index {
    unsigned x;
};

static thread_local Index threadIdx, blockIdx, gridDim;
static std::barrier<>* block_barrier;

static void __syncthreads() { block_barrier->arrive_and_wait(); }

template <typename T>
static T __ldg(const T* address) {
    return *address;
}

static float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

template <typename T>
static void atomicAdd(T* address, T value) {
    __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

static void atomicMax(unsigned* address, unsigned value) {
    unsigned seen = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (seen < value &&
           !__atomic_compare_exchange_n(address, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

template <typename Kernel>
static void launch(unsigned blocks, unsigned threads, Kernel kernel) {
    std::barrier<> barrier(threads);
    block_barrier = &barrier;
    std::vector<std::thread> running;
    for (unsigned thread = 0; thread < threads; ++thread)
        running.emplace_back([=, &barrier] {
            threadIdx = {thread};
            gridDim = {blocks};
            for (unsigned block = 0; block < blocks; ++block) {
                blockIdx = {block};
                kernel();
                barrier.arrive_and_wait();
            }
        });
    for (std::thread& thread : running) thread.join();
}

#include "count_values.cu"

extern "C" void launch_count_values(unsigned blocks, Counted* table, int tensors, int chunks, int beyond) {
    launch(blocks, THREADS, [=] { count_values(table, tensors, chunks, beyond); });
}

extern "C" void launch_grow_ranges(unsigned blocks, Counted* table) {
    launch(blocks, THREADS, [=] { grow_ranges(table); });
}
