// Convolution with blocks in bfloat16, NHWC, for the forward pass and the gradient of the input.
//
// Both are y[pixel, lanes] += x[pixel + at, pair] . w[entry, lanes]: an entry is a pair of channels of x at one tap, and weights
// of 16 or 32 channels of y for both. Forward: pairs of inputs, lanes of outputs. Gradient: pairs of outputs, lanes of inputs.
// A tile keeps SEG x L pixels x V vectors in registers; an entry costs V loads of weights and one broadcast a pixel, and
// every broadcast serves V dot products, so that loads stay below the two dot products a cycle.
#include "blocks_bf16_walk.h"

extern "C" int64_t campfire_blocks_bf16_built() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// Weights of the forward pass: pairs of entries of k outputs each, [pairs][k][2]; `source`: where a pair's first entry lies, and
// the second `apart` from it.
extern "C" void campfire_blocks_bf16_pairs(float* to, const Half* value, const int32_t* source, int64_t pairs, int64_t k,
                                           int64_t apart, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (int64_t i = 0; i < pairs; i++)
        for (int64_t h = 0; h < k; h += W) {
            const Half* from = value + source[i] + h;
            store(to + i * k + h, paired(from, from + apart));
        }
}

// Weights of the gradient of the input: [blocks][k / 2][lanes][2]; `source` [blocks][lanes]: where a channel's k outputs lie.
extern "C" void campfire_blocks_bf16_turned(float* to, const Half* value, const int32_t* source, int64_t blocks,
                                            int64_t lanes, int64_t k, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t l = 0; l < lanes; l += 16) {
            const int32_t* from = source + b * lanes + l;
            float* out = to + b * lanes * k / 2 + l;
            auto row = [&](int i) { return (const float*)(value + from[i]); };
            int64_t j = 0;
            for (; j + 16 <= k / 2; j += 16) turn16([&](int i) { return row(i) + j; }, out + j * lanes, lanes);
            for (; j < k / 2; j++)
                for (int i = 0; i < 16; i++) std::memcpy(out + j * lanes + i, row(i) + j, 4);
        }
}

#if defined(__AVX512BF16__)
namespace {

template <int V, int L, int SEG>
void tile(const Args& a, const float* const* x, Half* const* y, int64_t g) {
    const int64_t c1 = a.xs * 4, c3 = 3 * c1, c5 = 5 * c1;
    const int64_t from = a.start[g], n = a.start[g + 1] - from;
    for (int64_t h = 0; h < a.lanes; h += V * W) {
        const int64_t lane = g * a.lanes + h;
        Vec acc[SEG][L][V];
        UNROLL for (int v = 0; v < V; v++) {
            const Vec first = a.bias ? load(a.bias + lane + v * W) : Vec{};
            UNROLL for (int s = 0; s < SEG; s++)
                UNROLL for (int p = 0; p < L; p++) acc[s][p][v] = first;
        }
        const float* w = a.value + from * a.lanes + h;
        const int32_t* at = a.at + from;
        const char* next = a.next + from * a.apiece;
        for (int64_t i = 0; i < n; i++, w += a.lanes) {
            const int64_t o = at[i];
            __builtin_prefetch(next, 0, 2), next += a.apiece;
            Vec ww[V];
            UNROLL for (int v = 0; v < V; v++) ww[v] = load(w + v * W);
            UNROLL for (int s = 0; s < SEG; s++) {
                const float* b = x[s] + o;
                UNROLL for (int p = 0; p < L; p++) {
                    const Vec in = splat(pixel(b, p, c1, c3, c5));
                    UNROLL for (int v = 0; v < V; v++) acc[s][p][v] = dot(acc[s][p][v], in, ww[v]);
                }
            }
        }
        const Vec least = least_of(a);
        UNROLL for (int s = 0; s < SEG; s++)
            UNROLL for (int p = 0; p < L; p++) finish<V>(a, acc[s][p], y[s] + p * a.ys + lane, least);
    }
}

template <int V, int SEG>
Tile of_length(int64_t length) {
    static const Tile table[] = {nullptr,         tile<V, 1, SEG>, tile<V, 2, SEG>, tile<V, 3, SEG>,
                                 tile<V, 4, SEG>, tile<V, 5, SEG>, tile<V, 6, SEG>, tile<V, 7, SEG>};
    return table[length];
}

struct Vectors {  // the engine of the walk
    static constexpr int64_t LONGEST = 7;

    explicit Vectors(const Args&) {}
    static int64_t runs(int64_t lanes) { return lanes % (2 * W) == 0 ? 2 : 4; }
    static Tile tile_of(int64_t lanes, int64_t runs, int64_t length) {
        if (lanes % (2 * W) == 0) return runs == 1 ? of_length<2, 1>(length) : of_length<2, 2>(length);
        return runs == 1 ? of_length<1, 1>(length) : of_length<1, 4>(length);
    }
};

}  // namespace

extern "C" void campfire_blocks_bf16_conv(const int64_t* sizes, const Half* input, const int32_t* start,
                                          const int32_t* at, const float* value, int64_t lanes,
                                          const int32_t* in_order, const int32_t* out_order, const float* bias,
                                          const Half* residual, int64_t relu, Half* y, int64_t padded, int64_t pixel,
                                          int64_t strip) {
    convolve<Vectors>(sizes, input, start, at, value, lanes, 1, in_order, out_order, bias, residual, relu, y, padded, pixel,
                      strip, 1);
}
#endif
