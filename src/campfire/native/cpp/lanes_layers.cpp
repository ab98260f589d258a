// What stands between convolutions of tensors [channel][row][column][image]: conversion, batch normalisation, pooling.
#include <cmath>
#include <vector>

#include "lanes_convert.h"
#include "lanes_norm.h"
#include "lanes_parts.h"
#include "lanes_pool.h"

extern "C" {

// From [image][channel][pixel], or [image][pixel][channel] where channels run fastest, and back.
void campfire_lanes_take(const float* from, int32_t images, int32_t channels, int32_t pixels, int32_t channels_last,
                         float* to) {
  (channels_last ? from_channels_last : from_planes)({images, channels, pixels}, from, to);
}

void campfire_lanes_give(const float* from, int32_t images, int32_t channels, int32_t pixels, int32_t channels_last,
                         float* to) {
  (channels_last ? to_channels_last : to_planes)({images, channels, pixels}, from, to);
}

// Parts of images as lanes, and back; of an image that has fewer pixels than the parts together, they hold zeros.
void campfire_lanes_cut(const Parts* p, const float* x, float* lanes) {
#pragma omp parallel
  {
    std::vector<float> stage(p->part() * p->count());
#pragma omp for schedule(static)
    for (int c = 0; c < p->channels; c++) cut(*p, x + c * p->plane(), stage.data(), lanes + (int64_t)c * p->high * p->wide * 16);
  }
}

void campfire_lanes_join(const Parts* p, const float* lanes, const float* residual, int32_t relu, float* y) {
#pragma omp parallel
  {
    std::vector<float> stage(p->part() * p->count());
#pragma omp for schedule(static)
    for (int c = 0; c < p->channels; c++)
      join(*p, lanes + (int64_t)c * p->high * p->wide * 16, stage.data(), residual ? residual + c * p->plane() : nullptr, relu,
           y + c * p->plane());
  }
}

// y = (x - mean) / sqrt(variance + eps) weight + bias, channel by channel of n floats; mean and variance are measured
// and written. Without a weight it is 1, without a bias 0.
void campfire_lanes_norm(const float* x, int32_t channels, int64_t n, const float* weight, const float* bias, float eps,
                         float* y, float* mean, float* variance) {
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++) {
    moments(x + c * n, n, mean + c, variance + c);
    const float scale = (weight ? weight[c] : 1.f) / std::sqrt(variance[c] + eps);
    affine(x + c * n, n, scale, (bias ? bias[c] : 0.f) - mean[c] * scale, y + c * n);
  }
}

// y = x scale + shift: the same with moments that are known.
void campfire_lanes_affine(const float* x, int32_t channels, int64_t n, const float* scale, const float* shift, float* y) {
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++) affine(x + c * n, n, scale[c], shift[c], y + c * n);
}

void campfire_lanes_norm_back(const float* d_y, const float* x, int32_t channels, int64_t n, const float* weight,
                              float eps, const float* mean, const float* variance, float* d_x, float* d_weight,
                              float* d_bias) {
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++) {
    const float inverse = 1.f / std::sqrt(variance[c] + eps);
    norm_back(x + c * n, d_y + c * n, n, mean[c], inverse, weight ? weight[c] : 1.f, d_x + c * n, d_weight + c, d_bias + c);
  }
}

void campfire_lanes_max_pool(const Window* w, const float* x, float* y, uint8_t* taps) {
#pragma omp parallel for schedule(static)
  for (int c = 0; c < w->channels; c++)
    max_plane(*w, x + c * w->in_plane(), y + c * w->out_plane(), taps + c * w->out_plane());
}

void campfire_lanes_max_pool_back(const Window* w, const float* d_y, const uint8_t* taps, float* d_x) {
#pragma omp parallel for schedule(static)
  for (int c = 0; c < w->channels; c++)
    max_plane_back(*w, d_y + c * w->out_plane(), taps + c * w->out_plane(), d_x + c * w->in_plane());
}
}
