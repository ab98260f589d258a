// Gradient of the weights of blocks in bfloat16, NHWC: dw[entry, rows] = sum over pixels of x[pixel, channel] * dy[pixel, rows].
//
// A dot product adds two pixels at once, so pixels are paired: the same pixel of two images, or, in an image that is left over,
// of its two halves. Both tensors are interleaved first, strip by strip: x as [C / 16][pixels][16], dy as [groups][pixels][k],
// pairs, so that a row group and a block of channels are two streams. Then T runs of Q channels x V vectors of rows stay in
// registers while pixels go by.
#include "blocks_bf16_sums.h"

#if defined(__AVX512BF16__)
namespace {

struct Unit {  // `rows` rows of image n0 from h0 on, and of n1 from h1 on; n1 < 0: alone
    int64_t n0, h0, n1, h1, rows;
};

struct Args {
    const float* x;     // [C / 16][plane]
    const float* dy;    // of a group: [pixels][k]
    const int32_t* at;  // [runs of Q channels]: offset into x
    int64_t k, step;    // floats of x from pixel to pixel
    float* dw;
};

struct Run {
    int64_t x, dy, pixels;
};

template <int V, int T, int Q>
void entries(const Args& a, const std::vector<Run>& runs, int64_t from) {
    Vec acc[T * Q][V];
    float* out = a.dw + from * Q * a.k;
    UNROLL for (int j = 0; j < T * Q; j++)
        UNROLL for (int v = 0; v < V; v++) acc[j][v] = load(out + j * a.k + v * W);
    const float* x[T];
    UNROLL for (int t = 0; t < T; t++) x[t] = a.x + a.at[from + t];
    for (const Run& run : runs) {
        const float* dy = a.dy + run.dy * a.k;
        for (int64_t p = run.x, end = run.x + run.pixels * a.step; p < end; p += a.step, dy += a.k) {
            Vec d[V];
            UNROLL for (int v = 0; v < V; v++) d[v] = load(dy + v * W);
            UNROLL for (int t = 0; t < T; t++)
                UNROLL for (int q = 0; q < Q; q++) {
                    const Vec in = splat(x[t][p + q]);
                    UNROLL for (int v = 0; v < V; v++) acc[t * Q + q][v] = dot(acc[t * Q + q][v], in, d[v]);
                }
        }
    }
    UNROLL for (int j = 0; j < T * Q; j++)
        UNROLL for (int v = 0; v < V; v++) store(out + j * a.k + v * W, acc[j][v]);
}

template <int V, int Q>
void span(Args a, const std::vector<Run>& runs, int64_t from, int64_t to) {
    constexpr int MANY = 24 / V / Q;
    const float* dy = a.dy;
    float* dw = a.dw;
    for (int64_t h = 0; h < a.k; h += V * W) {
        a.dw = dw + h, a.dy = dy + h;
        int64_t e = from;
        for (; e + MANY <= to; e += MANY) entries<V, MANY, Q>(a, runs, e);
        for (; e + 2 <= to; e += 2) entries<V, 2, Q>(a, runs, e);
        for (; e < to; e++) entries<V, 1, Q>(a, runs, e);
    }
}

struct Job {
    Conv c;
    const Half *x, *dy;
    Half* dw;
    const int32_t* start;     // in runs of `quad` channels
    std::vector<int32_t> at;  // of them: block of channels, row, column, channel in the block
    std::vector<std::vector<Run>> runs;  // of each item
    int64_t k, quad, images, height, width, padded, step, plane, most;
    bool sparse;  // a 1x1 convolution that skips pixels: only those it reads are interleaved
    std::vector<Unit> units;
    std::vector<int64_t> items;  // first unit of each item, and their number
    const Shuffle& shuffle;
    bool ordered;

    Job(const Conv& conv, int64_t batch, const Shuffle& shuffle, bool ordered) : c(conv), shuffle(shuffle), ordered(ordered) {
        sparse = c.R == 1 && c.S == 1 && c.pad == 0 && c.stride > 1;
        const bool flat = c.flat();
        images = flat ? 1 : c.N, height = flat ? c.N * c.H * c.Wd : c.Ho, width = flat ? 1 : c.Wo;
        padded = flat ? 1 : sparse ? c.Wo : c.Wd + 2 * c.pad;
        step = flat || sparse ? 1 : c.stride;
        const int64_t rows = std::max<int64_t>(1, batch / width);
        for (int64_t n = 0; n + 1 < images; n += 2) cut({n, 0, n + 1, 0, height}, rows);
        if (images % 2) {
            const int64_t half = height / 2;
            cut({images - 1, 0, images - 1, half, half}, rows);
            if (height % 2) units.push_back({images - 1, height - 1, -1, 0, 1});
        }
        int64_t held = most = 0;
        plane = 0;
        int64_t pixels = 0;
        for (size_t u = 0; u < units.size(); u++) {
            if (held == 0 || held + units[u].rows > rows) items.push_back(u), held = pixels = 0;
            held += units[u].rows, pixels += needed(units[u]) * padded;
            plane = std::max(plane, pixels), most = std::max(most, held * width);
        }
        items.push_back(units.size());
        plane = plane * 16 + 16;
        for (int64_t i = 0; i < count(); i++) runs.push_back(runs_of(i));
    }

    void cut(Unit whole, int64_t rows) {
        const int64_t most_rows = c.flat() ? std::min<int64_t>(rows, 64) : rows;
        const int64_t parts = (whole.rows + most_rows - 1) / most_rows;
        for (int64_t i = 0; i < parts; i++) {
            const int64_t from = whole.rows * i / parts, to = whole.rows * (i + 1) / parts;
            units.push_back({whole.n0, whole.h0 + from, whole.n1, whole.h1 + from, to - from});
        }
    }

    int64_t needed(const Unit& u) const { return step == 1 && c.R == 1 ? u.rows : (u.rows - 1) * step + c.R; }
    int64_t x_lines(const Unit& u) const { return c.flat() ? 1 : needed(u); }  // what is interleaved at a time
    int64_t dy_lines(const Unit& u) const { return c.flat() ? 1 : u.rows; }
    int64_t count() const { return items.size() - 1; }
    int64_t threads() const { return c.threads; }
    int64_t x_floats() const { return c.C / 16 * plane; }
    int64_t dy_floats() const { return c.K * most; }

    // Row i of the pixels that a unit reads, in blocks of 16 channels.
    void x_row(float* to, const Unit& u, int64_t i) const {
        const int64_t left = c.flat() ? 0 : c.pad, apart = sparse ? c.stride : 1;
        const Half* rows[] = {row_of(u.n0, u.h0, i), u.n1 < 0 ? nullptr : row_of(u.n1, u.h1, i)};
        const int64_t wide = c.flat() ? u.rows : sparse ? c.Wo : c.Wd;
        for (int64_t b = 0; b < c.C; b += 16, to += plane) {
            for (int64_t p = 0; p < left; p++) store(to + p * 16, Vec{}), store(to + (padded - 1 - p) * 16, Vec{});
            both(to + left * 16, 16, rows, b, apart * c.C, wide);
        }
    }

    // Row i of the gradients of a unit, group by group.
    void dy_row(float* to, const Unit& u, int64_t i) const {
        const Half* rows[2];
        const int64_t ns[] = {u.n0, u.n1}, hs[] = {u.h0, u.h1}, wide = c.flat() ? u.rows : width;
        for (int j = 0; j < 2; j++) {
            rows[j] = ns[j] < 0 ? nullptr : dy + (ns[j] * height + hs[j] + i) * width * c.K;
            if (rows[j] && ordered) {
                Half* turned = (Half*)scratch(2 + j, wide * c.K / 2);
                shuffle(turned, c.K, rows[j], c.K, wide);
                rows[j] = turned;
            }
        }
        for (int64_t g = 0; g < c.K; g += k, to += most * k)
            for (int64_t h = 0; h < k; h += 16) both(to + h, k, rows, g + h, c.K, wide);
    }

    static void both(float* to, int64_t apart, const Half* const* rows, int64_t channel, int64_t step, int64_t pixels) {
        static const Half zeros[16] = {};
        const Half* a = rows[0] ? rows[0] + channel : zeros;
        const Half* b = rows[1] ? rows[1] + channel : zeros;
        for (int64_t p = 0; p < pixels; p++, to += apart) {
            store(to, paired(a, b));
            if (rows[0]) a += step;
            if (rows[1]) b += step;
        }
    }

    const Half* row_of(int64_t n, int64_t h, int64_t i) const {
        if (c.flat()) return x + (h + i) * c.C;
        const int64_t row = sparse ? (h + i) * c.stride : h * c.stride - c.pad + i;
        return row < 0 || row >= c.H ? nullptr : x + (n * c.H + row) * c.Wd * c.C;
    }

    int64_t lines(int64_t i) const {
        int64_t n = 0;
        for (int64_t u = items[i]; u < items[i + 1]; u++) n += x_lines(units[u]) + dy_lines(units[u]);
        return n;
    }

    // Line j of all that item i reads.
    void interleave(int64_t i, int64_t j, float* xs, float* dys) const {
        for (int64_t u = items[i]; u < items[i + 1]; u++) {
            const Unit& unit = units[u];
            if (j < x_lines(unit)) return x_row(xs + j * padded * 16, unit, j);
            j -= x_lines(unit), xs += needed(unit) * padded * 16;
            if (j < dy_lines(unit)) return dy_row(dys + j * width * k, unit, j);
            j -= dy_lines(unit), dys += unit.rows * width * k;
        }
    }

    std::vector<Run> runs_of(int64_t i) const {
        std::vector<Run> runs;
        int64_t x_rows = 0, dy_rows = 0;
        for (int64_t u = items[i]; u < items[i + 1]; x_rows += needed(units[u]), dy_rows += units[u].rows, u++) {
            if (padded == width && step == 1 && c.R == 1) {  // no pixels between the rows
                if (runs.empty()) runs.push_back({0, 0, 0});
                runs[0].pixels += units[u].rows * width;
                continue;
            }
            for (int64_t h = 0; h < units[u].rows; h++)
                runs.push_back({(x_rows + h * step) * padded * 16, (dy_rows + h) * width, width});
        }
        return runs;
    }

    void group(int64_t g, int64_t i, const float* xs, const float* dys, float* sums) const {
        const Args a{xs, dys + g * most * k, at.data(), k, step * 16, sums};
        auto go = k % (2 * W) == 0 ? (quad == 4 ? span<2, 4> : span<2, 2>) : (quad == 4 ? span<1, 4> : span<1, 2>);
        go(a, runs[i], start[g], start[g + 1]);
    }

    void round(const Totals& totals) const {
#pragma omp parallel for schedule(static) num_threads((int)threads())
        for (int64_t e = 0; e < totals.size; e += W) narrow(dw + e, totals.at(e));
    }
};

}  // namespace

// Runs of `quad` = 2 or 4 channels of one tap: `start` [groups + 1], `channel` and `tap` [runs]. dw: [runs][quad][k].
// `batch`: most pairs of pixels that are worked on at a time.
extern "C" void campfire_blocks_bf16_d_values(const int64_t* sizes, const Half* x, const int32_t* start, const int32_t* channel,
                                              const int32_t* tap, int64_t quad, const Half* dy, int64_t k,
                                              const int32_t* order, Half* dw, int64_t batch) {
    const Conv c = *(const Conv*)sizes;
    const Shuffle shuffle(order, c.K);
    Job job(c, batch, shuffle, order != nullptr);
    job.x = x, job.dy = dy, job.start = start, job.k = k, job.quad = quad;
    job.dw = dw, job.at.resize(start[c.K / k]);
    for (size_t e = 0; e < job.at.size(); e++)
        job.at[e] = channel[e] / 16 * job.plane + (tap[e] / c.S * job.padded + tap[e] % c.S) * 16 + channel[e] % 16;
    sum_up(job, c.K / k, job.at.size() * quad * k);
}
#endif
