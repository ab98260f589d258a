// The layers between convolutions, in the batch-lane layout: conversion, batch normalisation and pooling.
#include <cmath>

#include "lanes_convert.h"
#include "lanes_norm.h"
#include "lanes_pool.h"

extern "C" {

// Strides in floats; that of pixels or that of channels is 1. Lanes beyond the images become zero.
void campfire_lanes_pack(const float* from, int32_t images, int32_t channels, int32_t pixels, int64_t image,
                         int64_t channel, int64_t pixel, float* to) {
  to_lanes({images, channels, pixels, image, channel, pixel}, from, to);
}

void campfire_lanes_unpack(const float* from, int32_t images, int32_t channels, int32_t pixels, int64_t image,
                           int64_t channel, int64_t pixel, float* to) {
  from_lanes({images, channels, pixels, image, channel, pixel}, from, to);
}

// y = (x - mean) / sqrt(variance + eps) weight + bias (+ residual) (ReLU); mean and variance are measured and written.
void campfire_lanes_norm(const float* x, int32_t images, int32_t channels, int32_t pixels, const float* weight,
                         const float* bias, float eps, const float* residual, int32_t relu, float* y, float* mean,
                         float* variance) {
  const Shape shape{images, channels, pixels};
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++) {
    moments(shape, c, x, mean + c, variance + c);
    const float scale = weight[c] / std::sqrt(variance[c] + eps);
    affine(shape, c, x, scale, bias[c] - mean[c] * scale, residual, relu, y);
  }
}

// y = x scale + shift (+ residual) (ReLU): the same with moments that are given.
void campfire_lanes_affine(const float* x, int32_t images, int32_t channels, int32_t pixels, const float* scale,
                           const float* shift, const float* residual, int32_t relu, float* y) {
  const Shape shape{images, channels, pixels};
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++) affine(shape, c, x, scale[c], shift[c], residual, relu, y);
}

// `inverse` is 1 / sqrt(variance + eps); `y` is needed only where a residual came before the ReLU.
void campfire_lanes_norm_back(const float* x, const float* y, const float* d_y, int32_t images, int32_t channels,
                              int32_t pixels, const float* mean, const float* inverse, const float* weight,
                              const float* bias, int32_t relu, float* d_x, float* d_residual, float* d_weight,
                              float* d_bias) {
  const NormGradient back{{images, channels, pixels}, x,   y,          d_y,      mean,  inverse, weight, bias,
                          relu != 0,                  d_x, d_residual, d_weight, d_bias};
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++) back.channel(c);
}

void campfire_lanes_max_pool(const Window* w, const float* x, float* y, uint8_t* taps) {
  const int64_t in = (int64_t)w->height * w->width * LANES, out = (int64_t)w->out_height * w->out_width * LANES;
#pragma omp parallel for schedule(static)
  for (int i = 0; i < w->planes; i++) max_plane(*w, x + i * in, y + i * out, taps + i * out);
}

void campfire_lanes_max_pool_back(const Window* w, const float* d_y, const uint8_t* taps, float* d_x) {
  const int64_t in = (int64_t)w->height * w->width * LANES, out = (int64_t)w->out_height * w->out_width * LANES;
#pragma omp parallel for schedule(static)
  for (int i = 0; i < w->planes; i++) max_plane_back(*w, d_y + i * out, taps + i * out, d_x + i * in);
}

void campfire_lanes_mean(const float* x, int32_t planes, int32_t pixels, float* y) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < planes; i++) mean_plane(x + (int64_t)i * pixels * LANES, pixels, y + i * LANES);
}

void campfire_lanes_mean_back(const float* d_y, int32_t planes, int32_t pixels, float* d_x) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < planes; i++) mean_plane_back(d_y + i * LANES, pixels, d_x + (int64_t)i * pixels * LANES);
}
}
