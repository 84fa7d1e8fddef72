/* Codes of a byte each to a stream of bits, and back. */
#include "codes.h"

static void pack(const uint8_t *codes, int64_t n, int bits, uint8_t *stream)
{
    const uint8_t *end = stream + (n * bits + 7) / 8;
    pack_words(codes, n / 8, bits, stream, end);
    if (n % 8) {
        uint8_t last[8] = {0};
        memcpy(last, codes + n / 8 * 8, (size_t)(n % 8));
        pack_words(last, 1, bits, stream + n / 8 * bits, end);
    }
}

static void unpack(const uint8_t *stream, int64_t n, int bits, uint8_t *codes)
{
    const uint8_t *end = stream + (n * bits + 7) / 8;
    unpack_words(stream, end, n / 8, bits, codes);
    if (n % 8) {
        uint8_t last[8];
        unpack_words(stream + n / 8 * bits, end, 1, bits, last);
        memcpy(codes + n / 8 * 8, last, (size_t)(n % 8));
    }
}

/* codes_pack(codes, n, bits, stream); bits below 8 */
PyObject *codes_pack(PyObject *module, PyObject *args)
{
    unsigned long long codes, stream;
    long long n;
    int bits;
    (void)module;
    if (!PyArg_ParseTuple(args, "KLiK", &codes, &n, &bits, &stream))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    pack((const uint8_t *)(uintptr_t)codes, n, bits, (uint8_t *)(uintptr_t)stream);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* codes_unpack(stream, n, bits, codes); bits below 8 */
PyObject *codes_unpack(PyObject *module, PyObject *args)
{
    unsigned long long codes, stream;
    long long n;
    int bits;
    (void)module;
    if (!PyArg_ParseTuple(args, "KLiK", &stream, &n, &bits, &codes))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    unpack((const uint8_t *)(uintptr_t)stream, n, bits, (uint8_t *)(uintptr_t)codes);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}
