// What decoding computes for a row or a few, so that a token costs little more than reading the weights from memory.
// kernels.py compiles this for the machine that it runs on, and calls it.
//
// A matrix is [out, in], row by row, of BF16 or FP32; everything else is FP32. Vectors are those of GCC and Clang, which
// become whatever the machine has.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "halves of a word are taken for even and odd values");

typedef float Floats __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(32)));
typedef uint16_t Bf16;
static const int64_t STEP = 16;

template <class Vector>
static inline Vector load(const void* from) {
  Vector vector;
  memcpy(&vector, from, sizeof vector);
  return vector;
}

static inline float total(Floats v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// 16 weights as two vectors, and which of 16 inputs the i-th value of the two belongs to. BF16 is FP32's upper half.
struct Pair {
  Floats first, second;
};
static inline Pair pair(const float* w) { return {load<Floats>(w), load<Floats>(w + 8)}; }
static inline Pair pair(const Bf16* w) {
  Words both = load<Words>(w);
  return {(Floats)(both << 16), (Floats)(both & 0xffff0000u)};
}
static inline int place(const float*, int i) { return i; }
static inline int place(const Bf16*, int i) { return i < 8 ? 2 * i : 2 * i - 15; }

// Inputs in the order of the weights' pairs; rows are filled up with zeros to whole steps.
template <class Weight>
static void order(const Weight* w, const float* x, std::vector<Floats>& ordered, int64_t rows, int64_t in) {
  const int64_t steps = (in + STEP - 1) / STEP;
  ordered.assign(rows * steps * 2, Floats{});
  float* to = (float*)ordered.data();
  for (int64_t r = 0; r < rows; r++, x += in) {
    int64_t i = 0;
    for (; i + STEP <= in; i += STEP, to += STEP)
      for (int j = 0; j < STEP; j++) to[j] = x[i + place(w, j)];
    if (i == in) continue;
    for (int j = 0; j < STEP; j++) to[j] = i + place(w, j) < in ? x[i + place(w, j)] : 0;
    to += STEP;
  }
}

// OUTS rows of the matrix by ROWS ordered inputs.
template <int ROWS, int OUTS, class Weight>
static inline void products(const Weight* w, const Floats* x, float* y, int64_t in, int64_t out) {
  const int64_t whole = in / STEP, steps = (in + STEP - 1) / STEP;
  const int CHAINS = OUTS == 1 ? 2 : 1;  // sums that do not wait for each other, as many as there are registers for
  Floats sums[ROWS][OUTS][CHAINS] = {};
  auto add = [&](const Weight* from, int64_t stride, int64_t step) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int o = 0; o < OUTS; o++) {
      const Pair weights = pair(from + o * stride);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) {
        sums[r][o][0] += weights.first * x[(r * steps + step) * 2];
        sums[r][o][CHAINS - 1] += weights.second * x[(r * steps + step) * 2 + 1];
      }
    }
  };
  for (int64_t step = 0; step < whole; step++) {
    // Hardware's own prefetching ends with a page. What comes next is the matrix's next row.
    for (int o = 0; o < OUTS; o++) __builtin_prefetch((const char*)(w + o * in + step * STEP) + 2048);
    add(w + step * STEP, in, step);
  }
  if (whole < steps) {
    Weight rest[OUTS][STEP] = {};
    for (int o = 0; o < OUTS; o++) memcpy(rest[o], w + o * in + whole * STEP, (in - whole * STEP) * sizeof(Weight));
    add(rest[0], STEP, whole);
  }
  for (int r = 0; r < ROWS; r++)
    for (int o = 0; o < OUTS; o++) y[r * out + o] = total(sums[r][o][0]) + (CHAINS == 1 ? 0 : total(sums[r][o][1]));
}

// OUTS rows of the matrix by all rows of inputs.
template <int OUTS, class Weight>
static inline void all_rows(const Weight* w, const Floats* x, float* y, int64_t rows, int64_t in, int64_t out) {
  const int64_t stride = (in + STEP - 1) / STEP * 2;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) products<4, OUTS>(w, x + r * stride, y + r * out, in, out);
  for (; r + 2 <= rows; r += 2) products<2, OUTS>(w, x + r * stride, y + r * out, in, out);
  for (; r < rows; r++) products<1, OUTS>(w, x + r * stride, y + r * out, in, out);
}

// y [rows, out] = x [rows, in] w.T + bias, which may be null.
template <class Weight>
static void linear(const Weight* w, const float* bias, const float* given, float* y, int64_t rows, int64_t in,
                   int64_t out) {
  static thread_local std::vector<Floats> ordered;
  order(w, given, ordered, rows, in);
  const Floats* x = ordered.data();
  const int64_t outs = rows < 4 ? 1 : 2;  // for few rows memory is what takes the time
#pragma omp parallel for schedule(static)
  for (int64_t o = 0; o < out; o += outs) {
    const int64_t end = std::min(o + outs, out);
    if (end - o == 2)
      all_rows<2>(w + o * in, x, y + o, rows, in, out);
    else
      all_rows<1>(w + o * in, x, y + o, rows, in, out);
    for (int64_t r = 0; bias && r < rows; r++)
      for (int64_t i = o; i < end; i++) y[r * out + i] += bias[i];
  }
}

// e ** x to FP32's precision, in operations that a compiler makes vectors of: 2 ** n * e ** rest, |rest| <= ln(2) / 2.
static inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 87.0f);
  const float integer = 12582912.0f;  // beside 1.5 * 2 ** 23 there is no room for a fraction
  float shifted = x * 1.44269504f + integer, n = shifted - integer;
  float rest = x - n * 0.693359375f + n * 2.12194440e-4f;
  float sum = 1 / 720.0f + rest * (1 / 5040.0f);
  sum = 1 / 6.0f + rest * (1 / 24.0f + rest * (1 / 120.0f + rest * sum));
  sum = 1 + rest * (1 + rest * (0.5f + rest * sum));
  uint32_t power;
  memcpy(&power, &shifted, 4);
  power = (power << 23) + 0x3f800000u;
  float scale;
  memcpy(&scale, &power, 4);
  return sum * scale;
}

// Turns the pairs (i, i + size / 2).
static inline void rotate(float* x, const float* cosines, const float* sines, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size / 2; i++) {
    float first = x[i], second = x[i + size / 2];
    x[i] = first * cosines[i] - second * sines[i];
    x[i + size / 2] = second * cosines[i] + first * sines[i];
  }
}

// Softmax attention of one query, [size], to n keys and values, [n, size]; where mask is 0, to none of them.
static void attend(const float* q, const float* keys, const float* values, const bool* mask, float* out,
                   int64_t n, int64_t size) {
  static thread_local std::vector<float> scores;
  scores.assign(n, -INFINITY);
  const float scale = 1 / std::sqrt((float)size);
  float* score = scores.data();
  float largest = -INFINITY, sum = 0;
  for (int64_t j = 0; j < n; j++) {
    if (mask && !mask[j]) continue;
    float product = 0;
#pragma omp simd reduction(+ : product)
    for (int64_t i = 0; i < size; i++) product += q[i] * keys[j * size + i];
    score[j] = product * scale;
    largest = std::max(largest, score[j]);
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    score[j] = exponential(score[j] - largest);
    sum += score[j];
  }
  std::fill(out, out + size, 0.0f);
  for (int64_t j = 0; j < n; j++) {
    if (mask && !mask[j]) continue;
    const float share = score[j] / sum;
#pragma omp simd
    for (int64_t i = 0; i < size; i++) out[i] += share * values[j * size + i];
  }
}

// RMSNorm of x [rows, size]; y may be x.
static void norm(const float* weight, float eps, const float* x, float* y, int64_t rows, int64_t size) {
  for (int64_t r = 0; r < rows; r++, x += size, y += size) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < size; i++) squares += x[i] * x[i];
    const float scale = 1 / std::sqrt(squares / size + eps);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) y[i] = x[i] * scale * weight[i];
  }
}

// silu(gate) * up of x [rows, 2 * size], where gate comes first.
static void gated(const float* x, float* y, int64_t rows, int64_t size) {
  for (int64_t r = 0; r < rows; r++, x += 2 * size, y += size) {
#pragma omp simd
    for (int64_t i = 0; i < size; i++) y[i] = x[i] / (1 + exponential(-x[i])) * x[size + i];
  }
}

static void add(float* x, const float* y, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size; i++) x[i] += y[i];
}

// As kernels.py has them. What may be null: biases, and the norms of queries and keys.
struct Layer {
  const float* before;
  const void* qkv;
  const float *qkv_bias, *q_norm, *k_norm;
  const void* o;
  const float *o_bias, *between;
  const void* gate_up;
  const float* gate_up_bias;
  const void* down;
  const float* down_bias;
  int64_t hidden, mlp, queries, keys, size;
  float eps;
};

// What a layer's attention has: kept [batch, 2 * keys, length, size], into which the new keys and values are written at
// slot; cosines and sines [batch, size / 2], or null; mask [batch, slot + 1], or null.
struct Place {
  float* kept;
  const float *cosines, *sines;
  const bool* mask;
  int64_t batch, length, slot;
};

// heads: [batch, queries + 2 * keys, size] before norms and rotation, which change them. out: [batch, queries, size].
static void attention(const Layer& layer, const Place& place, float* heads, float* out) {
  const int64_t size = layer.size, keys = layer.keys, shared = layer.queries / keys, n = place.slot + 1;
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t b = 0; b < place.batch; b++)
    for (int64_t g = 0; g < keys; g++) {
      float* row = heads + b * (layer.queries + 2 * keys) * size;
      float *q = row + g * shared * size, *k = row + (layer.queries + g) * size;
      float* all_keys = place.kept + (b * 2 * keys + g) * place.length * size;
      float* all_values = all_keys + keys * place.length * size;
      if (layer.q_norm) norm(layer.q_norm, layer.eps, q, q, shared, size);
      if (layer.k_norm) norm(layer.k_norm, layer.eps, k, k, 1, size);
      if (place.cosines) {
        const float *cosines = place.cosines + b * (size / 2), *sines = place.sines + b * (size / 2);
        for (int64_t h = 0; h < shared; h++) rotate(q + h * size, cosines, sines, size);
        rotate(k, cosines, sines, size);
      }
      memcpy(all_keys + place.slot * size, k, size * sizeof(float));
      memcpy(all_values + place.slot * size, k + keys * size, size * sizeof(float));
      const bool* mask = place.mask ? place.mask + b * n : nullptr;
      float* to = out + (b * layer.queries + g * shared) * size;
      for (int64_t h = 0; h < shared; h++)
        attend(q + h * size, all_keys, all_values, mask, to + h * size, n, size);
    }
}

// A new token of each row through a layer: x [batch, hidden] becomes what the layer makes of it.
template <class Weight>
static void step(const Layer& l, const Place& place, float* x) {
  const int64_t rows = place.batch, all = l.queries * l.size, heads = all + 2 * l.keys * l.size;
  const int64_t wide = std::max(heads, 2 * l.mlp), narrow = std::max({l.hidden, all, l.mlp});
  static thread_local std::vector<float> room;
  room.resize(rows * (wide + narrow + l.hidden));
  float *first = room.data(), *second = first + rows * wide, *third = second + rows * narrow;
  norm(l.before, l.eps, x, second, rows, l.hidden);
  linear((const Weight*)l.qkv, l.qkv_bias, second, first, rows, l.hidden, heads);
  attention(l, place, first, second);
  linear((const Weight*)l.o, l.o_bias, second, third, rows, all, l.hidden);
  add(x, third, rows * l.hidden);
  norm(l.between, l.eps, x, second, rows, l.hidden);
  linear((const Weight*)l.gate_up, l.gate_up_bias, second, first, rows, l.hidden, 2 * l.mlp);
  gated(first, second, rows, l.mlp);
  linear((const Weight*)l.down, l.down_bias, second, third, rows, l.mlp, l.hidden);
  add(x, third, rows * l.hidden);
}

extern "C" {
void linear_bfloat16(const Bf16* w, const float* bias, const float* x, float* y, int64_t rows, int64_t in,
                     int64_t out) {
  linear(w, bias, x, y, rows, in, out);
}
void linear_float32(const float* w, const float* bias, const float* x, float* y, int64_t rows, int64_t in,
                    int64_t out) {
  linear(w, bias, x, y, rows, in, out);
}
void step_bfloat16(const Layer* layer, const Place* place, float* x) { step<Bf16>(*layer, *place, x); }
void step_float32(const Layer* layer, const Place* place, float* x) { step<float>(*layer, *place, x); }
}
