/* CUDA's runtime without a GPU: memory, copies that are counted, and kernels that compute nothing.

   Device memory is two mappings of one file. The addresses that are handed out cannot be read or written, so whoever
   takes them for the processor's ends at once; copies go by way of the other mapping. What is asked for and not written
   here (conftest.py adds it) succeeds and does nothing. */

#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOST ((size_t)1 << 36) /* of addresses: nothing is given back */

static char *device, *reachable;
static size_t used, limit = MOST;
static long copied[4], launched;

__attribute__((constructor)) static void reserve(void) {
    int file = memfd_create("device", 0);
    if (file < 0 || ftruncate(file, MOST)) abort();
    device = mmap(NULL, MOST, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
    reachable = mmap(NULL, MOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (device == MAP_FAILED || reachable == MAP_FAILED) abort();
}

static int on_device(const void *at) { return (char *)at >= device && (char *)at < device + MOST; }
static void *reach(const void *at) { return on_device(at) ? reachable + ((char *)at - device) : (void *)at; }

/* What tests ask. */

long stand_in_copied(enum cudaMemcpyKind kind) { return copied[kind]; }
long stand_in_launched(void) { return launched; }
void stand_in_forget(void) { memset(copied, 0, sizeof copied), launched = 0; }
void stand_in_leave(size_t free) { limit = used + free; }

/* Memory. */

cudaError_t cudaMalloc(void **at, size_t size) {
    size = (size + 255) & ~(size_t)255;
    if (used + size > limit) return cudaErrorMemoryAllocation;
    *at = device + used, used += size;
    return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void **at, size_t size, cudaMemPool_t pool, cudaStream_t stream) {
    return cudaMalloc(at, size);
}
cudaError_t cudaMallocHost(void **at, size_t size) {
    return (*at = calloc(1, size)) ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaHostAlloc(void **at, size_t size, unsigned flags) { return cudaMallocHost(at, size); }
cudaError_t cudaFreeHost(void *at) { return free(at), cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) { return *free = limit - used, *total = limit, cudaSuccess; }
cudaError_t cudaMemset(void *at, int value, size_t size) { return memset(reach(at), value, size), cudaSuccess; }
cudaError_t cudaMemsetAsync(void *at, int value, size_t size, cudaStream_t stream) {
    return cudaMemset(at, value, size);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind said) {
    copied[2 * on_device(from) + on_device(to)] += size;
    return memmove(reach(to), reach(from), size), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind said, cudaStream_t stream) {
    return cudaMemcpy(to, from, size, said);
}
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t at, enum cudaMemcpyKind said) {
    return cudaMemset(to, 0, size);
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *at) {
    memset(found, 0, sizeof *found);
    found->type = on_device(at) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    found->devicePointer = found->hostPointer = (void *)at;
    return cudaSuccess;
}

/* The device: an Orin's sizes. */

static const struct { enum cudaDeviceAttr name; int value; } attributes[] = {
    {cudaDevAttrComputeCapabilityMajor, 8}, {cudaDevAttrComputeCapabilityMinor, 7},
    {cudaDevAttrMultiProcessorCount, 16}, {cudaDevAttrWarpSize, 32}, {cudaDevAttrL2CacheSize, 4 << 20},
    {cudaDevAttrMaxThreadsPerBlock, 1024}, {cudaDevAttrMaxThreadsPerMultiProcessor, 1536},
    {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10}, {cudaDevAttrMaxSharedMemoryPerBlockOptin, 163 << 10},
    {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 164 << 10},
};

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr name, int number) {
    *value = 0;
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (attributes[i].name == name) *value = attributes[i].value;
    return cudaSuccess;
}
static int attribute(enum cudaDeviceAttr name) {
    int value;
    return cudaDeviceGetAttribute(&value, name, 0), value;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int number) {
    memset(found, 0, sizeof *found);
    strcpy(found->name, "stand-in");
    found->totalGlobalMem = limit;
    found->major = attribute(cudaDevAttrComputeCapabilityMajor);
    found->minor = attribute(cudaDevAttrComputeCapabilityMinor);
    found->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
    found->warpSize = attribute(cudaDevAttrWarpSize);
    found->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
    found->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
    found->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
    found->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
    found->sharedMemPerBlockOptin = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    found->sharedMemPerMultiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
    found->regsPerBlock = found->regsPerMultiprocessor = 64 << 10;
    for (int axis = 0; axis < 3; axis++) found->maxThreadsDim[axis] = 64, found->maxGridSize[axis] = 65535;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int *number) { return *number = 0, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) { return "out of the stand-in's memory"; }
const char *cudaGetErrorName(cudaError_t error) { return "cudaErrorMemoryAllocation"; }

/* Streams, events and kernels. */

static cudaError_t handle(void **made) { return (*made = malloc(1)) ? cudaSuccess : cudaErrorMemoryAllocation; }
cudaError_t cudaStreamCreate(cudaStream_t *made) { return handle((void **)made); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned flags) { return handle((void **)made); }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *made) { return handle((void **)made); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned flags) { return handle((void **)made); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) { return *ms = 1, cudaSuccess; }
cudaError_t cudaMemPoolCreate(cudaMemPool_t *made, const struct cudaMemPoolProps *asked) {
    return handle((void **)made);
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *count, const void *kernel, int threads, size_t shared, unsigned flags) {
    return *count = 2, cudaSuccess;
}

void **__cudaRegisterFatBinary(void *code) {
    static void *made;
    return &made;
}
cudaError_t __cudaGetKernel(cudaKernel_t *found, const void *kernel) {
    return *found = (cudaKernel_t)kernel, cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) {
    return launched++, cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) {
    return launched++, cudaSuccess;
}
cudaError_t cudaLaunchCooperativeKernel(
    const void *kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) {
    return launched++, cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *kernel, void **args) {
    return launched++, cudaSuccess;
}
