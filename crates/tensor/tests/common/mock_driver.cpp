// A stand-in for NVIDIA's driver with one GPU, for tests of what talks to it: memory is the host's, and a launch runs the
// emulated kernel of that name. Linked with the emulated kernels into a libcuda.so.
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

typedef int Result;
typedef unsigned long long Pointer;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

struct dim3 {
    unsigned x, y, z;
};

// What the tests change: MOCK_CUDA_VERSION, MOCK_CUDA_DEVICES, MOCK_CUDA_CAPABILITY (major).
static int setting(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

static char context, stream, module_;
static bool is_current = false;

#define EXPORT extern "C" __attribute__((visibility("default"))) Result

EXPORT cuInit(unsigned) { return setting("MOCK_CUDA_DEVICES", 1) ? SUCCESS : NO_DEVICE; }
EXPORT cuDriverGetVersion(int* version) { return *version = setting("MOCK_CUDA_VERSION", 13000), SUCCESS; }
EXPORT cuDeviceGetCount(int* count) { return *count = setting("MOCK_CUDA_DEVICES", 1), SUCCESS; }
EXPORT cuDeviceGet(int* device, int index) { return *device = index, SUCCESS; }
EXPORT cuDeviceGetName(char* name, int length, int) { return std::strncpy(name, "Mock GPU", length), SUCCESS; }
EXPORT cuDeviceGetAttribute(int* value, int attribute, int) {
    // 75 and 76: compute capability; 16: multiprocessors.
    *value = attribute == 75 ? setting("MOCK_CUDA_CAPABILITY", 9) : attribute == 16 ? 2 : 0;
    return SUCCESS;
}
EXPORT cuDevicePrimaryCtxRetain(void** out, int) { return *out = &context, SUCCESS; }
EXPORT cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
EXPORT cuCtxSetCurrent(void* given) { return is_current = given == &context, is_current ? SUCCESS : INVALID_VALUE; }
EXPORT cuStreamCreate(void** out, unsigned) { return *out = &stream, SUCCESS; }
EXPORT cuStreamSynchronize(void* given) { return given == &stream ? SUCCESS : INVALID_VALUE; }
EXPORT cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = (size_t)6 << 30, *total = (size_t)8 << 30, SUCCESS; }
EXPORT cuMemAlloc_v2(Pointer* out, size_t bytes) {
    void* memory = is_current ? std::aligned_alloc(512, (bytes + 511) / 512 * 512) : nullptr;
    if (memory) std::memset(memory, 0xFF, bytes);
    return *out = (Pointer)memory, memory ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT cuMemFree_v2(Pointer memory) { return std::free((void*)memory), SUCCESS; }
EXPORT cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* given) {
    return std::memcpy((void*)to, from, bytes), given == &stream ? SUCCESS : INVALID_VALUE;
}
EXPORT cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* given) {
    return std::memcpy(to, (void*)from, bytes), given == &stream ? SUCCESS : INVALID_VALUE;
}
EXPORT cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, void* given) {
    return std::memset((void*)to, value, bytes), given == &stream ? SUCCESS : INVALID_VALUE;
}
EXPORT cuModuleLoadData(void** out, const void* image) {
    // Real machine code, as NVRTC made it.
    return *out = &module_, std::memcmp(image, "\x7f" "ELF", 4) ? INVALID_VALUE : SUCCESS;
}
EXPORT cuModuleGetFunction(void** out, void*, const char* name) {
    return *out = dlsym(RTLD_DEFAULT, name), *out ? SUCCESS : NOT_FOUND;
}
EXPORT cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void* given, void** args, void**) {
    if (shared != 0 || given != &stream || !is_current) return INVALID_VALUE;
    auto kernel = (Result(*)(dim3, dim3, void**))function;
    return kernel(dim3{gx, gy, gz}, dim3{bx, by, bz}, args) ? LAUNCH_FAILED : SUCCESS;
}
EXPORT cuGetErrorString(Result, const char** text) { return *text = "an error of the mock driver", SUCCESS; }
EXPORT cuGetErrorName(Result, const char** text) { return *text = "MOCK_ERROR", SUCCESS; }
