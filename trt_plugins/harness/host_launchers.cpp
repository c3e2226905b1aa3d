// The launchers on host memory: each is its CPU twin. Linked in place of the kernels, it lets a plugin's enqueue run without a GPU.
#include "../max_pool/max_pool.h"
#include "../roi_align/roi_align.h"
#include "../upsample_argmax/upsample_argmax.h"

extern "C" {

EsStatus edgeseg_roi_align_cuda(const EsRoiAlign* args, void*) { return edgeseg_roi_align_cpu(args, 1); }
EsStatus edgeseg_max_pool_argmax_cuda(const EsMaxPoolArgmax* args, void*) { return edgeseg_max_pool_argmax_cpu(args, 1); }
EsStatus edgeseg_max_unpool_cuda(const EsMaxUnpool* args, void*) { return edgeseg_max_unpool_cpu(args, 1); }
EsStatus edgeseg_max_pool_indices_cuda(const EsMaxPoolIndices* args, void*) { return edgeseg_max_pool_indices_cpu(args, 1); }
EsStatus edgeseg_max_unpool_indices_cuda(const EsMaxUnpoolIndices* args, void*) { return edgeseg_max_unpool_indices_cpu(args, 1); }
EsStatus edgeseg_upsample_argmax_cuda(const EsUpsampleArgmax* args, void*) { return edgeseg_upsample_argmax_cpu(args, 1); }

}  // extern "C"
