// Counts the absolute values of many tensors in a few launches: what AbsHistogram computes, bit for bit.
//
// A group of tensors takes three launches:
//
//   count_values(beyond = 0)  counts the values inside each histogram's range, and finds the peaks;
//   grow_ranges               doubles ranges that a peak does not fit in, and merges pairs of bins;
//   count_values(beyond = 1)  counts the values that were outside the range before it grew.
//
// So values are read once, except where a range grows, which soon no longer happens.
//
// Absolute values are handled as the bits of a float32 without its sign: these compare as the values
// do, and infinity and NaN are above all others.

constexpr int BIN_BITS = 11;
constexpr int BINS = 1 << BIN_BITS;
constexpr int MIN_EXPONENT = -100;
constexpr int MAX_EXPONENT = 128;
constexpr unsigned INFINITY_BITS = 0x7f800000u;

constexpr int THREADS = 512;       // of a block; also in cuda_counting.py
constexpr long long CHUNK = 8192;  // values; also in cuda_counting.py

// A tensor and the state of its histogram; nine 64-bit words, which cuda_counting.py writes.
struct Counted {
    const void* values;
    long long size;         // how many values
    long long type;         // 0: float32, 1: float16, 2: bfloat16
    long long first_chunk;  // how many chunks the tensors before it have
    unsigned long long* counts;
    int* exponent;          // the range is [0, 2**exponent)
    unsigned* peak;         // bits of the largest absolute value
    bool* finite;
    long long previous;     // grow_ranges writes the exponent before here
};

struct Float32 {
    using Bits = unsigned;
    static __device__ unsigned magnitude(unsigned bits) { return bits & 0x7fffffffu; }
};

struct Float16 {
    using Bits = unsigned short;
    static __device__ unsigned magnitude(unsigned bits) {
        bits &= 0x7fffu;
        if (bits >= 0x7c00u) return INFINITY_BITS | (bits & 0x3ffu) << 13;
        // The exponent's bias is 15 instead of 127; the product also makes subnormals normal.
        return __float_as_uint(__uint_as_float(bits << 13) * 0x1p112f);
    }
};

struct BFloat16 {
    using Bits = unsigned short;
    static __device__ unsigned magnitude(unsigned bits) { return (bits & 0x7fffu) << 16; }
};

// What one thread finds out about the values that it sees.
struct Tally {
    unsigned* bins;    // the block's, in shared memory
    unsigned low;      // values from here ...
    unsigned span;     // ... to less than low + span are counted
    float factor;      // turns a value into its bin
    unsigned peak;
    unsigned in_bin_0; // apart: behind a ReLU most values are zeros, which would all add to one address

    __device__ void add(unsigned magnitude) {
        peak = max(peak, magnitude);
        // One branch alone, so that several values are under way at a time.
        const bool inside = magnitude - low < span;
        const float scaled = inside ? __uint_as_float(magnitude) * factor : 0.0f;
        const unsigned bin = static_cast<unsigned>(scaled);
        in_bin_0 += inside && bin == 0;
        if (bin != 0) atomicAdd(bins + bin, 1u);
    }

    template <typename Type>
    __device__ void add_word(unsigned word) {
        if (sizeof(typename Type::Bits) == 4) {
            add(Type::magnitude(word));
        } else {
            add(Type::magnitude(word & 0xffffu));
            add(Type::magnitude(word >> 16));
        }
    }

    template <typename Type>
    __device__ void add_vector(uint4 vector) {
        add_word<Type>(vector.x);
        add_word<Type>(vector.y);
        add_word<Type>(vector.z);
        add_word<Type>(vector.w);
    }

    // Takes this thread's share of values[begin:end]; begin is a multiple of CHUNK.
    template <typename Type>
    __device__ void add_values(const void* all, long long begin, long long end) {
        using Bits = typename Type::Bits;
        const Bits* const values = static_cast<const Bits*>(all) + begin;
        const unsigned size = static_cast<unsigned>(end - begin);
        unsigned vectors = 0;
        constexpr unsigned EACH = sizeof(uint4) / sizeof(Bits);
        if (reinterpret_cast<unsigned long long>(values) % sizeof(uint4) == 0) {
            vectors = size / EACH;
            const uint4* const aligned = reinterpret_cast<const uint4*>(values);
            for (unsigned i = threadIdx.x; i < vectors; i += 2 * THREADS) {
                // Two loads under way at a time, so neither may wait for the other.
                const bool both = i + THREADS < vectors;
                const uint4 one = __ldg(aligned + i);
                uint4 two{};
                if (both) two = __ldg(aligned + i + THREADS);
                add_vector<Type>(one);
                if (both) add_vector<Type>(two);
            }
        }
        for (unsigned i = vectors * EACH + threadIdx.x; i < size; i += THREADS)
            add(Type::magnitude(__ldg(values + i)));
    }
};

// The bits of 2**exponent; those of infinity for 2**128, so that all finite values are below.
__device__ unsigned range_bits(int exponent) {
    return static_cast<unsigned>(exponent + 127) << 23;
}

__device__ float power_of_two(int exponent) { return __uint_as_float(range_bits(exponent)); }

// The tensor that a chunk belongs to.
__device__ int row_of(const Counted* table, int tensors, long long chunk) {
    int low = 0, high = tensors;  // in [low, high)
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table[middle].first_chunk <= chunk)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// Each block takes consecutive chunks, and adds its own counts to a histogram once it is through
// with the tensor. Blocks: any number up to that of the chunks. A block's share has less than 2**32
// values: the whole would be larger than a device's memory.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    count_values(const Counted* table, int tensors, int chunks, int beyond) {
    __shared__ unsigned bins[BINS];
    __shared__ unsigned peak;

    const long long last = (blockIdx.x + 1ll) * chunks / gridDim.x;
    long long chunk = static_cast<long long>(blockIdx.x) * chunks / gridDim.x;
    for (int row = row_of(table, tensors, chunk); chunk < last; ++row) {
        const Counted counted = table[row];
        const long long stop = row + 1 < tensors ? min(last, table[row + 1].first_chunk) : last;
        const long long begin = (chunk - counted.first_chunk) * CHUNK;
        const long long end = min((stop - counted.first_chunk) * CHUNK, counted.size);
        chunk = stop;

        const int exponent = *counted.exponent;
        const unsigned high = range_bits(exponent);
        const unsigned low = beyond ? range_bits(static_cast<int>(counted.previous)) : 0u;
        if (low == high) continue;  // the range did not grow

        for (int bin = threadIdx.x; bin < BINS; bin += THREADS) bins[bin] = 0;
        if (threadIdx.x == 0) peak = 0;
        __syncthreads();

        Tally tally{bins, low, high - low, power_of_two(BIN_BITS - exponent), 0u, 0u};
        if (counted.type == 0)
            tally.add_values<Float32>(counted.values, begin, end);
        else if (counted.type == 1)
            tally.add_values<Float16>(counted.values, begin, end);
        else
            tally.add_values<BFloat16>(counted.values, begin, end);
        if (tally.in_bin_0) atomicAdd(bins, tally.in_bin_0);
        atomicMax(&peak, tally.peak);
        __syncthreads();

        for (int bin = threadIdx.x; bin < BINS; bin += THREADS)
            if (bins[bin]) atomicAdd(counted.counts + bin, static_cast<unsigned long long>(bins[bin]));
        if (threadIdx.x == 0) atomicMax(counted.peak, peak);
        __syncthreads();
    }
}

// One block for each tensor.
extern "C" __global__ void __launch_bounds__(THREADS) grow_ranges(Counted* table) {
    __shared__ unsigned long long merged[BINS];

    const Counted counted = table[blockIdx.x];
    const unsigned peak = *counted.peak;
    const int before = *counted.exponent;
    // The least exponent with peak < 2**exponent.
    const int needed = max(MIN_EXPONENT, min(MAX_EXPONENT, static_cast<int>(peak >> 23) - 126));
    const int exponent = max(before, needed);
    __syncthreads();  // every thread has read the exponent
    if (threadIdx.x == 0) {
        table[blockIdx.x].previous = before;
        *counted.exponent = exponent;
        if (peak >= INFINITY_BITS) *counted.finite = false;
    }
    if (exponent == before) return;

    const int shift = min(exponent - before, BIN_BITS);
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) merged[bin] = 0;
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS)
        if (counted.counts[bin]) atomicAdd(merged + (bin >> shift), counted.counts[bin]);
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) counted.counts[bin] = merged[bin];
}
