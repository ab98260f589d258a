// Gradient of the weights of blocks of output rows, NHWC: dw[entry, rows] = sum over pixels of x[pixel, channel] * dy[pixel, rows].
//
// J entries x V vectors of rows stay in registers while pixels go by: V loads of dy and J broadcasts of x a pixel. A batch of
// pixels is turned over first, so that the pixels of a channel lie side by side: J streams instead of J lines a pixel.
// Threads share entries, never pixels, and batches follow each other in order: the sum does not depend on their number.
#include "conv.h"
#include "transpose.h"

namespace {

struct Run {
    int64_t x;  // floats from the start of a plane
    const float* dy;
    int64_t pixels;
};

struct Args {
    const float* planes;  // [C][plane]
    const int32_t* at;    // [entries]: offset into the planes
    int64_t k, xs, ys;
    float* dw;
};

template <int V, int J>
void entries(const Args& a, const std::vector<Run>& runs, int64_t from, int64_t row) {
    Vec acc[J][V];
    float* out = a.dw + from * a.k;
    UNROLL for (int j = 0; j < J; j++)
        UNROLL for (int v = 0; v < V; v++) acc[j][v] = load(out + j * a.k + v * W);
    const float* x[J];
    UNROLL for (int j = 0; j < J; j++) x[j] = a.planes + a.at[from + j];
    for (const Run& run : runs) {
        const float* dy = run.dy + row;
        for (int64_t p = run.x, end = run.x + run.pixels * a.xs; p < end; p += a.xs, dy += a.ys) {
            Vec d[V];
            UNROLL for (int v = 0; v < V; v++) d[v] = load(dy + v * W);
            UNROLL for (int j = 0; j < J; j++) {
                Vec in = splat(x[j][p]);
                UNROLL for (int v = 0; v < V; v++) acc[j][v] += in * d[v];
            }
        }
    }
    UNROLL for (int j = 0; j < J; j++)
        UNROLL for (int v = 0; v < V; v++) store(out + j * a.k + v * W, acc[j][v]);
}

constexpr int MANY = W == 16 ? 12 : 4;

template <int V>
void span(Args a, const std::vector<Run>& runs, int64_t from, int64_t to, int64_t row) {
    float* dw = a.dw;
    for (int64_t h = 0; h < a.k; h += V * W) {
        a.dw = dw + h;
        int64_t e = from;
        for (; e + MANY <= to; e += MANY) entries<V, MANY>(a, runs, e, row + h);
        for (; e + 4 <= to; e += 4) entries<V, 4>(a, runs, e, row + h);
        for (; e < to; e++) entries<V, 1>(a, runs, e, row + h);
    }
}

struct Span {  // what threads share: neighbouring entries of one row group
    int64_t from, to, row;
};

std::vector<Span> spans_of(const int32_t* start, int64_t groups, int64_t k, int64_t most) {
    std::vector<Span> spans;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t e = start[g]; e < start[g + 1]; e += most)
            spans.push_back({e, std::min<int64_t>(start[g + 1], e + most), g * k});
    return spans;
}

// `rows` padded rows of an image from row `top` on, channels [c0, c1) turned into planes.
void turn_rows(const Conv& c, float* planes, int64_t plane, const float* image, int64_t top, int64_t rows, int64_t padded,
               int64_t c0, int64_t c1) {
    for (int64_t i = 0; i < rows; i++) {
        const int64_t h = top + i;
        const bool inside = h >= 0 && h < c.H;
        for (int64_t j = c0; j < c1; j++) {
            float* row = planes + j * plane + i * padded;
            if (!inside) std::memset(row, 0, sizeof(float) * padded);
            else
                for (int64_t q = 0; q < c.pad; q++) row[q] = row[padded - 1 - q] = 0;
        }
        if (inside)
            turn(image + h * c.Wd * c.C + c0, c.C, planes + c0 * plane + i * padded + c.pad, plane, c.Wd, c1 - c0);
    }
}

}  // namespace

extern "C" void campfire_blocks_d_values(const int64_t* sizes, const float* x, const int32_t* start, const int32_t* channel,
                                         const int32_t* tap, const float* dy, int64_t k, const int32_t* order, float* dw,
                                         int64_t batch) {
    const Conv c = *(const Conv*)sizes;
    const bool flat = c.flat();
    const int64_t height = flat ? c.N * c.H * c.Wd : c.Ho, width = flat ? 1 : c.Wo, images = flat ? 1 : c.N;
    const int64_t padded = flat ? 1 : c.Wd + 2 * c.pad, groups = c.K / k;
    const int64_t rows = std::max<int64_t>(1, std::min(height, batch / width));
    const int64_t needed = flat ? rows : (rows - 1) * c.stride + c.R;
    const int64_t plane = (needed * padded + 15) / 16 * 16 + 16;  // not a power of two
    const auto spans = spans_of(start, groups, k, 4 * MANY);
    std::memset(dw, 0, sizeof(float) * start[groups] * k);
    float* planes = scratch(1, c.C * plane);
    float* permuted = order ? scratch(2, rows * width * c.K) : nullptr;
    std::vector<int32_t> at(start[groups]);
    for (int64_t e = 0; e < start[groups]; e++) at[e] = channel[e] * plane + tap[e] / c.S * padded + tap[e] % c.S;
    const Args a{planes, at.data(), k, flat ? 1 : c.stride, c.K, dw};
    std::vector<Run> runs;
    for (int64_t i = 0; i < images * ((height + rows - 1) / rows); i++) {
        const int64_t n = i / ((height + rows - 1) / rows), h0 = i % ((height + rows - 1) / rows) * rows;
        const int64_t h1 = std::min(height, h0 + rows);
        const float* image = x + n * c.H * c.Wd * c.C;
        const float* grad = dy + (n * height + h0) * width * c.K;
        runs.clear();
        if (flat) runs.push_back({0, grad, h1 - h0});
        else
            for (int64_t h = 0; h < h1 - h0; h++) runs.push_back({h * c.stride * padded, grad + h * width * c.K, width});
#pragma omp parallel num_threads((int)c.threads)
        {
#pragma omp for schedule(static) nowait
            for (int64_t c0 = 0; c0 < c.C; c0 += 16) {
                const int64_t c1 = std::min(c.C, c0 + 16);
                if (flat) turn(x + h0 * c.C + c0, c.C, planes + c0 * plane, plane, h1 - h0, c1 - c0);
                else turn_rows(c, planes, plane, image, h0 * c.stride - c.pad, (h1 - h0 - 1) * c.stride + c.R, padded, c0, c1);
            }
            if (order) {
#pragma omp for schedule(static) nowait
                for (int64_t p = 0; p < (h1 - h0) * width; p++)
                    for (int64_t j = 0; j < c.K; j++) permuted[p * c.K + j] = grad[p * c.K + order[j]];
#pragma omp single
                for (Run& run : runs) run.dy = permuted + (run.dy - grad);
            }
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
            for (size_t s = 0; s < spans.size(); s++)
                (k % (2 * W) == 0 ? span<2> : span<1>)(a, runs, spans[s].from, spans[s].to, spans[s].row);
        }
    }
}
