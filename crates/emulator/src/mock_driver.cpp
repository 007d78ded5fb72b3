// A stand-in for NVIDIA's driver with one GPU, for tests of what talks to it: memory is the host's, and a launch runs the
// emulated kernel of that name. Linked with the emulated kernels into a libcuda.so.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <string>
#include <vector>

typedef int Result;
typedef unsigned long long Pointer;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

struct dim3 {
    unsigned x, y, z;
};

// What the tests change: MOCK_CUDA_VERSION, MOCK_CUDA_DEVICES, MOCK_CUDA_CAPABILITY (major), MOCK_CUDA_FREE_MIB, MOCK_CUDA_REPORT.
static int setting(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

static char context, streams[8], module_;
static int stream_count = 0;
static bool is_current = false;

// Work of a stream; what is asked for on one that is captured is noted, not done.
typedef std::vector<std::function<Result()>> Graph;
static void* captured = nullptr;
static Graph* noted = nullptr;

static bool is_stream(void* given) { return given >= streams && given < streams + stream_count; }

static Result ask(void* given, std::function<Result()> work) {
    if (!is_stream(given) || !is_current) return INVALID_VALUE;
    if (given != captured) return work();
    return noted->push_back(work), SUCCESS;
}

static Result run(const Graph& graph) {
    for (const auto& work : graph)
        if (Result result = work()) return result;
    return SUCCESS;
}

struct Function {
    Result (*run)(dim3, dim3, void**);
    int arguments;
};

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
EXPORT cuStreamCreate(void** out, unsigned) { return *out = &streams[stream_count++], SUCCESS; }
EXPORT cuStreamSynchronize(void* given) { return is_stream(given) && given != captured ? SUCCESS : INVALID_VALUE; }
EXPORT cuStreamBeginCapture_v2(void* given, int) {
    if (!is_stream(given) || captured) return INVALID_VALUE;
    return captured = given, noted = new Graph, SUCCESS;
}
EXPORT cuStreamEndCapture(void* given, void** out) {
    if (given != captured) return INVALID_VALUE;
    return captured = nullptr, *out = noted, SUCCESS;
}
EXPORT cuGraphInstantiateWithFlags(void** out, void* graph, unsigned long long) {
    return *out = new Graph(*(Graph*)graph), SUCCESS;
}

// With MOCK_CUDA_REPORT, says at the end what was launched from graphs.
static struct Report {
    int graphs = 0;
    ~Report() {
        if (setting("MOCK_CUDA_REPORT", 0)) std::fprintf(stderr, "%d graph launches\n", graphs);
    }
} report;

EXPORT cuGraphLaunch(void* graph, void* given) {
    report.graphs++;
    return ask(given, [graph] { return run(*(Graph*)graph); });
}
EXPORT cuGraphDestroy(void* graph) { return delete (Graph*)graph, SUCCESS; }
EXPORT cuGraphExecDestroy(void* graph) { return delete (Graph*)graph, SUCCESS; }
EXPORT cuMemGetInfo_v2(size_t* free, size_t* total) {
    return *free = (size_t)setting("MOCK_CUDA_FREE_MIB", 6144) << 20, *total = (size_t)8 << 30, SUCCESS;
}
EXPORT cuMemAlloc_v2(Pointer* out, size_t bytes) {
    void* memory = is_current ? std::aligned_alloc(512, (bytes + 511) / 512 * 512) : nullptr;
    if (memory) std::memset(memory, 0xFF, bytes);
    return *out = (Pointer)memory, memory ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT cuMemFree_v2(Pointer memory) { return std::free((void*)memory), SUCCESS; }
EXPORT cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* given) {
    // Pageable memory: a graph would read it again later.
    if (!is_stream(given) || given == captured) return INVALID_VALUE;
    return std::memcpy((void*)to, from, bytes), SUCCESS;
}
EXPORT cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* given) {
    if (!is_stream(given) || given == captured) return INVALID_VALUE;
    return std::memcpy(to, (void*)from, bytes), SUCCESS;
}
EXPORT cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void* given) {
    return ask(given, [=] { return std::memcpy((void*)to, (void*)from, bytes), SUCCESS; });
}
EXPORT cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, void* given) {
    return ask(given, [=] { return std::memset((void*)to, value, bytes), SUCCESS; });
}
EXPORT cuModuleLoadData(void** out, const void* image) {
    // Real machine code, as NVRTC made it.
    return *out = &module_, std::memcmp(image, "\x7f" "ELF", 4) ? INVALID_VALUE : SUCCESS;
}
EXPORT cuModuleGetFunction(void** out, void*, const char* name) {
    auto kernel = (Result(*)(dim3, dim3, void**))dlsym(RTLD_DEFAULT, name);
    auto arguments = (int (*)())dlsym(RTLD_DEFAULT, (std::string(name) + "_arguments").c_str());
    if (!kernel || !arguments) return NOT_FOUND;
    return *out = new Function{kernel, arguments()}, SUCCESS;
}
EXPORT cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void* given, void** args, void**) {
    if (shared != 0) return INVALID_VALUE;
    auto kernel = (Function*)function;
    // As the driver does, before the call returns. Prima's arguments lie in eight bytes each.
    std::vector<Pointer> values;
    for (int i = 0; i < kernel->arguments; i++) values.push_back(*(Pointer*)args[i]);
    return ask(given, [=] {
        std::vector<Pointer> copies = values;
        std::vector<void*> places;
        for (Pointer& value : copies) places.push_back(&value);
        return kernel->run(dim3{gx, gy, gz}, dim3{bx, by, bz}, places.data()) ? LAUNCH_FAILED : SUCCESS;
    });
}
EXPORT cuGetErrorString(Result, const char** text) { return *text = "an error of the mock driver", SUCCESS; }
EXPORT cuGetErrorName(Result, const char** text) { return *text = "MOCK_ERROR", SUCCESS; }
