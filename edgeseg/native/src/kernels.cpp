// Compiled once per instruction set: everything below lies in namespace edgeseg::EDGESEG_ISA.
// No templates of the standard library here: the linker would keep one copy for all, maybe the AVX-512 one.
#include "kernels.h"
#include "crf_kernels.h"
#include "hha_kernels.h"
#include "overlay.h"
#include "preprocess.h"
#include "upsample.h"

namespace edgeseg {
namespace EDGESEG_ISA {

#define EDGESEG_STRING_(x) #x
#define EDGESEG_STRING(x) EDGESEG_STRING_(x)

extern const Kernels table;
const Kernels table = {EDGESEG_STRING(EDGESEG_ISA), preprocess, upsample_argmax, upsample_threshold, overlay,
                       crf_locate, crf_unary, crf_splat, crf_scatter, crf_blur, crf_update,
                       hha_normals, hha_planes};

}  // namespace EDGESEG_ISA
}  // namespace edgeseg
