// Python module hymate.ops._native: picks the instruction set, checks arguments, calls the kernels.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;
using namespace hymate;

namespace {

using Array = nb::ndarray<const float, nb::device::cpu>;
using Output = nb::ndarray<float, nb::device::cpu>;
using Optional = std::optional<Array>;
using OptionalOutput = std::optional<Output>;

// ---- instruction set

std::vector<const Kernels *> runnable() {
    std::vector<const Kernels *> found;
#if defined(HYMATE_X86_64)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) found.push_back(&avx512::kernels);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::kernels);
#endif
    found.push_back(&baseline::kernels);
    return found;
}

const Kernels *chosen = nullptr;

const Kernels &kernels() {
    if (!chosen) chosen = runnable().front();
    return *chosen;
}

void force_isa(const std::string &name) {
    std::string known;
    for (const Kernels *one : runnable()) {
        if (name == one->isa) {
            chosen = one;
            return;
        }
        known += std::string(known.empty() ? "" : ", ") + one->isa;
    }
    throw std::invalid_argument("instruction set '" + name + "' is not available here; choose from: " + known);
}

// ---- arguments

[[noreturn]] void refuse(const char *name, const std::string &expected) {
    throw std::invalid_argument(std::string(name) + " must have " + expected);
}

template <typename A>
void require_shape(const char *name, const A &array, std::initializer_list<int64_t> shape) {
    bool fits = array.ndim() == shape.size();
    size_t i = 0;
    for (int64_t extent : shape) {
        fits = fits && (int64_t)array.shape(i) == extent;
        ++i;
    }
    if (fits) return;
    std::string text = "shape (";
    for (int64_t extent : shape) text += std::to_string(extent) + ", ";
    refuse(name, text + ")");
}

Sequence sequence(const char *name, const Array &array, int64_t batch, int64_t length, int64_t width) {
    require_shape(name, array, {batch, length, width});
    if (width > 1 && array.stride(2) != 1) refuse(name, "adjacent elements in its last dimension");
    return {array.data(), array.stride(0), array.stride(1)};
}

Sequence sequence(const char *name, const Optional &array, int64_t batch, int64_t length, int64_t width) {
    return array ? sequence(name, *array, batch, length, width) : Sequence{};
}

// Shared, with exactly `shape`, or per sample, with the batch in front.
Parameter parameter(const char *name, const Array &array, int64_t batch, int64_t rows, int64_t columns = 0) {
    const size_t ndim = columns ? 2 : 1;
    const bool per_sample = array.ndim() == ndim + 1;
    if (!per_sample && columns) require_shape(name, array, {rows, columns});
    if (!per_sample && !columns) require_shape(name, array, {rows});
    if (per_sample && columns) require_shape(name, array, {batch, rows, columns});
    if (per_sample && !columns) require_shape(name, array, {batch, rows});
    const size_t first = per_sample ? 1 : 0, last = first + ndim - 1;
    if ((array.shape(last) > 1 && array.stride(last) != 1) ||
        (columns && rows > 1 && array.stride(first) != columns))
        refuse(name, "its rows contiguous");
    return {array.data(), per_sample ? array.stride(0) : 0, per_sample};
}

Parameter parameter(const char *name, const Optional &array, int64_t batch, int64_t rows) {
    return array ? parameter(name, *array, batch, rows) : Parameter{};
}

float *output(const char *name, const Output &array, int64_t size) {
    int64_t stride = 1;
    for (size_t i = array.ndim(); i-- > 0; stride *= (int64_t)array.shape(i))
        if (size && array.shape(i) > 1 && array.stride(i) != stride) refuse(name, "contiguous memory");
    if ((int64_t)array.size() != size) refuse(name, std::to_string(size) + " elements");
    return array.data();
}

float *output(const char *name, const OptionalOutput &array, int64_t size, bool needed) {
    if (needed != array.has_value()) refuse(name, needed ? "an array to write to" : "no array: its input is absent");
    return array ? output(name, *array, size) : nullptr;
}

Scan scan_arguments(const Array &u, const Array &delta, const Array &A, const Array &B, const Array &C,
                    const Optional &D, const Optional &z, const Optional &delta_bias, bool delta_softplus,
                    int threads) {
    if (u.ndim() != 3) refuse("u", "three dimensions: batch, length, channels");
    if (A.ndim() != 2 && A.ndim() != 3) refuse("A", "dimensions channels, state, or batch, channels, state");
    Scan scan;
    scan.batch = u.shape(0), scan.length = u.shape(1), scan.channels = u.shape(2);
    scan.states = A.shape(A.ndim() - 1);
    if (scan.states < 1) refuse("A", "at least one state");
    scan.u = sequence("u", u, scan.batch, scan.length, scan.channels);
    scan.delta = sequence("delta", delta, scan.batch, scan.length, scan.channels);
    scan.B = sequence("B", B, scan.batch, scan.length, scan.states);
    scan.C = sequence("C", C, scan.batch, scan.length, scan.states);
    scan.z = sequence("z", z, scan.batch, scan.length, scan.channels);
    scan.A = parameter("A", A, scan.batch, scan.channels, scan.states);
    scan.D = parameter("D", D, scan.batch, scan.channels);
    scan.delta_bias = parameter("delta_bias", delta_bias, scan.batch, scan.channels);
    scan.delta_softplus = delta_softplus;
    scan.threads = threads < 1 ? 1 : threads;
    return scan;
}

int64_t extent(const Parameter &parameter, int64_t batch, int64_t size) {
    return parameter.per_sample ? batch * size : size;
}

template <typename Call>
void run(Call call) {
    nb::gil_scoped_release release;
    if (!call()) throw std::bad_alloc();
}

// ---- operations

void scan_forward(const Array &u, const Array &delta, const Array &A, const Array &B, const Array &C,
                  const Optional &D, const Optional &z, const Optional &delta_bias, bool delta_softplus,
                  const Output &y, const OptionalOutput &checkpoints, int threads) {
    const Scan scan = scan_arguments(u, delta, A, B, C, D, z, delta_bias, delta_softplus, threads);
    const int64_t saved = checkpoint_size(scan.batch, scan.length, scan.channels, scan.states);
    const ScanOutput out = {output("y", y, scan.batch * scan.length * scan.channels),
                            output("checkpoints", checkpoints, saved, checkpoints.has_value())};
    run([&] { return kernels().scan_forward(scan, out); });
}

void scan_backward(const Array &dy, const Array &u, const Array &delta, const Array &A, const Array &B,
                   const Array &C, const Optional &D, const Optional &z, const Optional &delta_bias,
                   bool delta_softplus, const Array &checkpoints, const Output &du, const Output &ddelta,
                   const Output &dA, const Output &dB, const Output &dC, const OptionalOutput &dD,
                   const OptionalOutput &dz, const OptionalOutput &ddelta_bias, int threads) {
    const Scan scan = scan_arguments(u, delta, A, B, C, D, z, delta_bias, delta_softplus, threads);
    require_shape("checkpoints", checkpoints,
                  {checkpoint_size(scan.batch, scan.length, scan.channels, scan.states)});
    const int64_t wide = scan.batch * scan.length * scan.channels, narrow = scan.batch * scan.length * scan.states;
    ScanGradients out;
    out.dy = sequence("dy", dy, scan.batch, scan.length, scan.channels);
    out.checkpoints = checkpoints.data();
    out.du = output("du", du, wide), out.ddelta = output("ddelta", ddelta, wide);
    out.dB = output("dB", dB, narrow), out.dC = output("dC", dC, narrow);
    out.dA = output("dA", dA, extent(scan.A, scan.batch, scan.channels * scan.states));
    out.dz = output("dz", dz, wide, z.has_value());
    out.dD = output("dD", dD, extent(scan.D, scan.batch, scan.channels), D.has_value());
    out.ddelta_bias = output("ddelta_bias", ddelta_bias, extent(scan.delta_bias, scan.batch, scan.channels),
                             delta_bias.has_value());
    run([&] { return kernels().scan_backward(scan, out); });
}

Convolution convolution_arguments(const Array &x, const Array &weight, const Optional &bias, int threads) {
    if (x.ndim() != 3) refuse("x", "three dimensions: batch, length, channels");
    if (weight.ndim() != 2 && weight.ndim() != 3) refuse("weight", "dimensions [batch,] channels, width");
    Convolution conv;
    conv.batch = x.shape(0), conv.length = x.shape(1), conv.channels = x.shape(2);
    conv.width = weight.shape(weight.ndim() - 1);
    if (conv.width < 1 || conv.width > 4) refuse("weight", "a width of 1 to 4");
    conv.x = sequence("x", x, conv.batch, conv.length, conv.channels);
    conv.weight = parameter("weight", weight, conv.batch, conv.channels, conv.width);
    conv.bias = parameter("bias", bias, conv.batch, conv.channels);
    conv.threads = threads < 1 ? 1 : threads;
    return conv;
}

void convolution_forward(const Array &x, const Array &weight, const Optional &bias, const Output &y,
                         int threads) {
    const Convolution conv = convolution_arguments(x, weight, bias, threads);
    float *to = output("y", y, conv.batch * conv.length * conv.channels);
    run([&] { return kernels().convolution_forward(conv, to); });
}

void convolution_backward(const Array &dy, const Array &x, const Array &weight, const Optional &bias,
                          const Output &dx, const Output &dweight, const OptionalOutput &dbias, int threads) {
    const Convolution conv = convolution_arguments(x, weight, bias, threads);
    ConvolutionGradients out;
    out.dy = sequence("dy", dy, conv.batch, conv.length, conv.channels);
    out.dx = output("dx", dx, conv.batch * conv.length * conv.channels);
    out.dweight = output("dweight", dweight, extent(conv.weight, conv.batch, conv.channels * conv.width));
    out.dbias = output("dbias", dbias, extent(conv.bias, conv.batch, conv.channels), bias.has_value());
    run([&] { return kernels().convolution_backward(conv, out); });
}

Matrix matrix(const char *name, const Array &array, int64_t rows, int64_t columns) {
    require_shape(name, array, {rows, columns});
    if (columns > 1 && array.stride(1) != 1) refuse(name, "adjacent elements in its last dimension");
    return {array.data(), array.stride(0)};
}

const float *whole(const char *name, const Array &array, std::initializer_list<int64_t> shape) {
    require_shape(name, array, shape);
    int64_t stride = 1;
    for (size_t i = array.ndim(); i-- > 0; stride *= (int64_t)array.shape(i))
        if (array.shape(i) > 1 && array.stride(i) != stride) refuse(name, "contiguous memory");
    return array.data();
}

// `x` or `dy` gives the number of rows.
Linear linear_arguments(const Array &rows, const Array &weight, int threads) {
    if (rows.ndim() != 2 || weight.ndim() != 2) refuse("each argument", "two dimensions");
    Linear linear = {};
    linear.rows = rows.shape(0), linear.outputs = weight.shape(0), linear.inputs = weight.shape(1);
    linear.weight = whole("weight", weight, {linear.outputs, linear.inputs});
    linear.threads = threads < 1 ? 1 : threads;
    return linear;
}

void linear_forward(const Array &x, const Array &weight, const Optional &bias, const Output &y, int threads) {
    Linear linear = linear_arguments(x, weight, threads);
    linear.x = matrix("x", x, linear.rows, linear.inputs);
    const float *offset = bias ? whole("bias", *bias, {linear.outputs}) : nullptr;
    float *to = output("y", y, linear.rows * linear.outputs);
    run([&] { return kernels().linear_forward(linear, offset, to); });
}

void linear_backward_input(const Array &dy, const Array &weight, const Output &dx, int threads) {
    const Linear linear = linear_arguments(dy, weight, threads);
    const Matrix from = matrix("dy", dy, linear.rows, linear.outputs);
    float *to = output("dx", dx, linear.rows * linear.inputs);
    run([&] { return kernels().linear_backward_input(linear, from, to); });
}

void linear_backward_weight(const Array &dy, const Array &x, const Output &dweight, const OptionalOutput &dbias,
                            int threads) {
    if (dy.ndim() != 2 || x.ndim() != 2) refuse("each argument", "two dimensions");
    Linear linear = {};
    linear.rows = dy.shape(0), linear.outputs = dy.shape(1), linear.inputs = x.shape(1);
    linear.threads = threads < 1 ? 1 : threads;
    linear.x = matrix("x", x, linear.rows, linear.inputs);
    const Matrix from = matrix("dy", dy, linear.rows, linear.outputs);
    float *to = output("dweight", dweight, linear.outputs * linear.inputs);
    float *offset = output("dbias", dbias, linear.outputs, dbias.has_value());
    run([&] { return kernels().linear_backward_weight(linear, from, to, offset); });
}

Norm norm_arguments(const Array &x, const Array &weight, float epsilon, int threads) {
    if (x.ndim() != 3) refuse("x", "three dimensions: batch, length, width");
    Norm norm;
    norm.batch = x.shape(0), norm.length = x.shape(1), norm.width = x.shape(2);
    norm.x = sequence("x", x, norm.batch, norm.length, norm.width);
    norm.weight = parameter("weight", weight, norm.batch, norm.width);
    norm.epsilon = epsilon;
    norm.threads = threads < 1 ? 1 : threads;
    return norm;
}

void norm_forward(const Array &x, const Array &weight, float epsilon, const Output &y, int threads) {
    const Norm norm = norm_arguments(x, weight, epsilon, threads);
    float *to = output("y", y, norm.batch * norm.length * norm.width);
    run([&] { return kernels().norm_forward(norm, to); });
}

void norm_backward(const Array &dy, const Array &x, const Array &weight, float epsilon, const Output &dx,
                   const Output &dweight, int threads) {
    const Norm norm = norm_arguments(x, weight, epsilon, threads);
    NormGradients out;
    out.dy = sequence("dy", dy, norm.batch, norm.length, norm.width);
    out.dx = output("dx", dx, norm.batch * norm.length * norm.width);
    out.dweight = output("dweight", dweight, extent(norm.weight, norm.batch, norm.width));
    run([&] { return kernels().norm_backward(norm, out); });
}

using Lengths = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Attention attention_arguments(const Array &qkv, const Lengths &lengths, int64_t heads, int64_t window,
                              int threads) {
    if (qkv.ndim() != 3) refuse("qkv", "three dimensions: batch, length, 3 * heads * width");
    if (heads < 1 || qkv.shape(2) % (3 * heads)) refuse("qkv", "a last dimension that 3 * heads divides");
    if (window < 0) refuse("window", "a value of at least 0");
    Attention attention;
    attention.batch = qkv.shape(0), attention.length = qkv.shape(1), attention.heads = heads;
    attention.width = qkv.shape(2) / (3 * heads);
    attention.qkv = sequence("qkv", qkv, attention.batch, attention.length, qkv.shape(2));
    if ((int64_t)lengths.shape(0) != attention.batch) refuse("lengths", "one number per sample");
    attention.lengths = lengths.data();
    for (int64_t i = 0; i < attention.batch; ++i)
        if (attention.lengths[i] < 0 || attention.lengths[i] > attention.length)
            refuse("lengths", "values from 0 to the padded length");
    attention.window = window < attention.length ? window : attention.length;
    attention.threads = threads < 1 ? 1 : threads;
    return attention;
}

void attention_forward(const Array &qkv, const Lengths &lengths, int64_t heads, int64_t window,
                       const Output &y, const Output &logsum, int threads) {
    const Attention attention = attention_arguments(qkv, lengths, heads, window, threads);
    const int64_t positions = attention.batch * attention.length;
    float *to = output("y", y, positions * heads * attention.width);
    float *sums = output("logsum", logsum, positions * heads);
    run([&] { return kernels().attention_forward(attention, to, sums); });
}

void attention_backward(const Array &dy, const Array &qkv, const Lengths &lengths, int64_t heads,
                        int64_t window, const Array &y, const Array &logsum, const Output &dqkv, int threads) {
    const Attention attention = attention_arguments(qkv, lengths, heads, window, threads);
    const int64_t all = heads * attention.width;
    AttentionGradients out;
    out.dy = sequence("dy", dy, attention.batch, attention.length, all);
    const Sequence seen = sequence("y", y, attention.batch, attention.length, all);
    if (attention.batch * attention.length > 1 && (seen.step != all || seen.sample != attention.length * all))
        refuse("y", "contiguous memory");
    require_shape("logsum", logsum, {attention.batch, heads, attention.length});
    out.y = y.data(), out.logsum = logsum.data();
    out.dqkv = output("dqkv", dqkv, attention.batch * attention.length * 3 * all);
    run([&] { return kernels().attention_backward(attention, out); });
}

void dropout(const Array &x, const nb::ndarray<const int16_t, nb::device::cpu> &bits, int threshold, float scale,
             const Output &y, int threads) {
    const int64_t count = (int64_t)x.size();
    if ((int64_t)bits.size() != count) refuse("bits", std::to_string(count) + " elements");
    if (threshold < INT16_MIN || threshold > INT16_MAX) refuse("threshold", "a value of 16 bits");
    float *to = output("y", y, count);
    run([&] { return kernels().dropout(x.data(), bits.data(), count, (int16_t)threshold, scale, to, threads); });
}

void exponential(const Array &x, const Output &y, int64_t repetitions) {
    float *to = output("y", y, (int64_t)x.size());
    nb::gil_scoped_release release;
    for (int64_t i = 0; i < repetitions; ++i) kernels().exponential(x.data(), to, (int64_t)x.size());
}

}  // namespace

NB_MODULE(_native, m) {
#if defined(_OPENMP)
    m.attr("OPENMP") = true;
#else
    m.attr("OPENMP") = false;
#endif
    m.def("checkpoint_size", &checkpoint_size, nb::arg("batch"), nb::arg("length"), nb::arg("channels"),
          nb::arg("states"), "Floats that scan_forward needs to save what scan_backward reads.");
    m.def("isa", [] { return kernels().isa; }, "Name of the instruction set in use.");
    m.def("lanes", [] { return kernels().lanes; }, "Floats per vector of the instruction set in use.");
    m.def(
        "available_isas",
        [] {
            std::vector<std::string> names;
            for (const Kernels *one : runnable()) names.emplace_back(one->isa);
            return names;
        },
        "Instruction sets that this machine can run, fastest first.");
    m.def("force_isa", &force_isa, nb::arg("name"), "Use this instruction set from now on.");
    m.def("exponential", &exponential, nb::arg("x"), nb::arg("y"), nb::arg("repetitions") = 1,
          "y = e^x, as the scan computes it.");

    m.def("scan_forward", &scan_forward, nb::arg("u"), nb::arg("delta"), nb::arg("A"), nb::arg("B"),
          nb::arg("C"), nb::arg("D").none(), nb::arg("z").none(), nb::arg("delta_bias").none(),
          nb::arg("delta_softplus"), nb::arg("y"), nb::arg("checkpoints").none(), nb::arg("threads"));
    m.def("scan_backward", &scan_backward, nb::arg("dy"), nb::arg("u"), nb::arg("delta"), nb::arg("A"),
          nb::arg("B"), nb::arg("C"), nb::arg("D").none(), nb::arg("z").none(), nb::arg("delta_bias").none(),
          nb::arg("delta_softplus"), nb::arg("checkpoints"), nb::arg("du"), nb::arg("ddelta"), nb::arg("dA"),
          nb::arg("dB"), nb::arg("dC"), nb::arg("dD").none(), nb::arg("dz").none(),
          nb::arg("ddelta_bias").none(), nb::arg("threads"));
    m.def("linear_forward", &linear_forward, nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(),
          nb::arg("y"), nb::arg("threads"));
    m.def("linear_backward_input", &linear_backward_input, nb::arg("dy"), nb::arg("weight"), nb::arg("dx"),
          nb::arg("threads"));
    m.def("linear_backward_weight", &linear_backward_weight, nb::arg("dy"), nb::arg("x"), nb::arg("dweight"),
          nb::arg("dbias").none(), nb::arg("threads"));
    m.def("dropout", &dropout, nb::arg("x"), nb::arg("bits"), nb::arg("threshold"), nb::arg("scale"),
          nb::arg("y"), nb::arg("threads"));
    m.def("norm_forward", &norm_forward, nb::arg("x"), nb::arg("weight"), nb::arg("epsilon"), nb::arg("y"),
          nb::arg("threads"));
    m.def("norm_backward", &norm_backward, nb::arg("dy"), nb::arg("x"), nb::arg("weight"), nb::arg("epsilon"),
          nb::arg("dx"), nb::arg("dweight"), nb::arg("threads"));
    m.def("attention_forward", &attention_forward, nb::arg("qkv"), nb::arg("lengths"), nb::arg("heads"),
          nb::arg("window"), nb::arg("y"), nb::arg("logsum"), nb::arg("threads"));
    m.def("attention_backward", &attention_backward, nb::arg("dy"), nb::arg("qkv"), nb::arg("lengths"),
          nb::arg("heads"), nb::arg("window"), nb::arg("y"), nb::arg("logsum"), nb::arg("dqkv"),
          nb::arg("threads"));
    m.def("convolution_forward", &convolution_forward, nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(),
          nb::arg("y"), nb::arg("threads"));
    m.def("convolution_backward", &convolution_backward, nb::arg("dy"), nb::arg("x"), nb::arg("weight"),
          nb::arg("bias").none(), nb::arg("dx"), nb::arg("dweight"), nb::arg("dbias").none(),
          nb::arg("threads"));
}
