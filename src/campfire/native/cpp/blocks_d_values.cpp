// Gradient of the weights of blocks of output rows, NHWC: dw[entry, rows] = sum over pixels of x[pixel, channel] * dy[pixel, rows].
//
// J entries x V vectors of rows stay in registers while pixels go by: V loads of dy and J broadcasts of x a pixel. A batch of
// pixels is turned over first, so that the pixels of a channel lie side by side: J streams instead of J lines a pixel.
// Threads never wait for each other. Where the weights are small beside the pixels, parts of the pixels have sums of their own,
// which are added up in the end; else the row groups are shared out, and every thread turns the pixels over for itself. Which of
// the two, and into how many parts, follows from the sizes alone: the sum does not depend on the number of threads.
#include "ahead.h"
#include "conv.h"
#include "transpose.h"

#include <memory>

namespace {

struct Run {
    int64_t x;  // floats from the start of a plane
    const float* dy;
    int64_t pixels;
};

// The pixels of the next batch, x and dy side by side: a loop over pixels has all other registers full of pointers.
struct Next {
    typedef int64_t Two __attribute__((vector_size(16)));
    Two at, bytes;

    Next(Soon x, Soon dy) : at{(int64_t)x.at, (int64_t)dy.at}, bytes{x.bytes, dy.bytes} {}
    void step() { ahead((const void*)at[0]), ahead((const void*)at[1]), at += bytes; }
};

struct Args {
    const float* planes;  // [C][plane]
    const int32_t* at;    // [entries]: offset into the planes
    int64_t k, xs, ys;
    float* dw;
};

template <int V, int J>
void entries(const Args& a, const std::vector<Run>& runs, int64_t from, int64_t row, Next& next) {
    Next soon = next;
    Vec acc[J][V];
    float* out = a.dw + from * a.k;
    UNROLL for (int j = 0; j < J; j++)
        UNROLL for (int v = 0; v < V; v++) acc[j][v] = load(out + j * a.k + v * W);
    const float* x[J];
    UNROLL for (int j = 0; j < J; j++) x[j] = a.planes + a.at[from + j];
    for (const Run& run : runs) {
        const float* dy = run.dy + row;
        for (int64_t p = run.x, end = run.x + run.pixels * a.xs; p < end; p += a.xs, dy += a.ys) {
            soon.step();
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
    next = soon;
}

constexpr int MANY = W == 16 ? 12 : 4;

template <int V>
void span(Args a, const std::vector<Run>& runs, int64_t from, int64_t to, int64_t row, Next& next) {
    float* dw = a.dw;
    for (int64_t h = 0; h < a.k; h += V * W) {
        a.dw = dw + h;
        int64_t e = from;
        for (; e + MANY <= to; e += MANY) entries<V, MANY>(a, runs, e, row + h, next);
        for (; e + 4 <= to; e += 4) entries<V, 4>(a, runs, e, row + h, next);
        for (; e < to; e++) entries<V, 1>(a, runs, e, row + h, next);
    }
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

// One call, cut into batches of pixels: `rows` rows of an image, or of the one long row of a 1x1 convolution.
struct Job {
    Conv c;
    const float *x, *dy;
    const int32_t *start, *channel, *tap;
    Order order;
    int64_t k, rows, height, width, padded, plane, strips, batches;
    bool sparse;  // a 1x1 convolution that skips pixels: only those it reads are turned over

    Job(const Conv& conv, int64_t batch) : c(conv) {
        sparse = c.R == 1 && c.S == 1 && c.pad == 0 && c.stride > 1;
        height = c.flat() ? c.N * c.H * c.Wd : c.Ho, width = c.flat() ? 1 : c.Wo;
        padded = c.flat() ? 1 : sparse ? c.Wo : c.Wd + 2 * c.pad;
        rows = std::max<int64_t>(1, std::min(height, batch / width));
        strips = (height + rows - 1) / rows;
        if (strips > 1) strips += strips % 2, rows = (height + strips - 1) / strips;  // equal work for two threads
        const int64_t needed = c.flat() || sparse ? rows : (rows - 1) * c.stride + c.R;
        plane = (needed * padded + 15) / 16 * 16 + 16;  // not a power of two
        strips = (height + rows - 1) / rows, batches = strips * (c.flat() ? 1 : c.N);
    }

    const float* x_of(int64_t n, int64_t row) const { return x + (c.flat() ? row : (n * c.H + row * c.stride) * c.Wd) * c.C; }
    const float* dy_of(int64_t n, int64_t row) const { return dy + (n * height + row) * width * c.K; }

    // What batch i reads, in the course of all the pixels that `entries` entries go by.
    Next following(int64_t i, int64_t entries) const {
        const int64_t last = std::min(i, batches - 1), n = last / strips, h0 = last % strips * rows, h1 = std::min(height, h0 + rows);
        const int64_t visits = rows * width * entries / MANY;
        return {Soon::in_steps(x_of(n, h0), x_of(n, h1) - x_of(n, h0), visits),
                Soon::in_steps(dy_of(n, h0), dy_of(n, h1) - dy_of(n, h0), visits)};
    }

    // Batch i added to the row groups [g0, g1) of dw.
    void run(int64_t i, int64_t g0, int64_t g1, const int32_t* at, float* dw) const {
        const int64_t n = i / strips, h0 = i % strips * rows, h1 = std::min(height, h0 + rows);
        const float* grad = dy_of(n, h0);
        float* planes = scratch(1, c.C * plane);
        if (c.flat()) turn(x + h0 * c.C, c.C, planes, plane, h1 - h0, c.C);
        else if (sparse)
            for (int64_t h = h0; h < h1; h++)
                turn(x + (n * c.H + h * c.stride) * c.Wd * c.C, c.stride * c.C, planes + (h - h0) * padded, plane, c.Wo, c.C);
        else
            turn_rows(c, planes, plane, x + n * c.H * c.Wd * c.C, h0 * c.stride - c.pad,
                      (h1 - h0 - 1) * c.stride + c.R, padded, 0, c.C);
        if (order.index) {
            float* permuted = scratch(2, rows * width * c.K);
            permute(grad, c.K, c.K, permuted, c.K, (h1 - h0) * width, order, g0 * k, g1 * k, scratch(3, (c.K + 1) * 16));
            grad = permuted;
        }
        static thread_local std::vector<Run> runs;
        runs.clear();
        if (c.flat()) runs.push_back({0, grad, h1 - h0});
        else
            for (int64_t h = 0; h < h1 - h0; h++) runs.push_back({h * (sparse ? 1 : c.stride) * padded, grad + h * width * c.K, width});
        const Args a{planes, at, k, c.flat() || sparse ? 1 : c.stride, c.K, dw};
        Next next = following(i + 1, start[g1] - start[g0]);
        for (int64_t g = g0; g < g1; g++)
            (k % (2 * W) == 0 ? span<2> : span<1>)(a, runs, start[g], start[g + 1], g * k, next);
    }
};

constexpr int64_t PARTS = 8;

// Whether partial sums are fewer than the pixels that would else be turned over once a thread.
bool few_sums(const Job& job, int64_t size) { return job.batches > 1 && size * PARTS <= job.c.N * job.c.Ho * job.c.Wo * job.c.C; }

void by_pixels(const Job& job, int64_t groups, int64_t size, const int32_t* at, float* dw) {
    const int64_t parts = std::min(PARTS, job.batches);
    const std::unique_ptr<float[]> sums(new float[size * parts]);
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)job.c.threads)
    for (int64_t part = 0; part < parts; part++) {
        std::memset(&sums[part * size], 0, sizeof(float) * size);
        for (int64_t i = part * job.batches / parts; i < (part + 1) * job.batches / parts; i++)
            job.run(i, 0, groups, at, &sums[part * size]);
    }
#pragma omp parallel for schedule(static) num_threads((int)job.c.threads)
    for (int64_t e = 0; e < size; e++) {
        float sum = 0;
        for (int64_t part = 0; part < parts; part++) sum += sums[part * size + e];
        dw[e] = sum;
    }
}

void by_groups(const Job& job, int64_t groups, int64_t size, const int32_t* at, float* dw) {
    std::memset(dw, 0, sizeof(float) * size);
    const int64_t shares = std::min(groups, job.c.threads);
#pragma omp parallel for schedule(static, 1) num_threads((int)job.c.threads)
    for (int64_t share = 0; share < shares; share++)
        for (int64_t i = 0; i < job.batches; i++)
            job.run(i, share * groups / shares, (share + 1) * groups / shares, at, dw);
}

}  // namespace

extern "C" void campfire_blocks_d_values(const int64_t* sizes, const float* x, const int32_t* start, const int32_t* channel,
                                         const int32_t* tap, const float* dy, int64_t k, const int32_t* order,
                                         const int32_t* moves, float* dw, int64_t batch) {
    Job job(*(const Conv*)sizes, batch);
    job.x = x, job.dy = dy, job.start = start, job.channel = channel, job.tap = tap, job.order = {order, moves}, job.k = k;
    const int64_t groups = job.c.K / k, size = start[groups] * k;
    std::vector<int32_t> at(start[groups]);
    for (int64_t e = 0; e < start[groups]; e++)
        at[e] = channel[e] * job.plane + tap[e] / job.c.S * job.padded + tap[e] % job.c.S;
    (few_sums(job, size) ? by_pixels : by_groups)(job, groups, size, at.data(), dw);
}
