# Decides whether the CUDA module is built, and for which architectures.
if(NOT FASTCAL_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "FASTCAL_CUDA is '${FASTCAL_CUDA}', expected AUTO, ON or OFF")
endif()

set(FASTCAL_HAS_CUDA OFF)
if(NOT FASTCAL_CUDA STREQUAL OFF)
  # Real code for each generation, and PTX of the newest for what comes after it.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90-real 100-real 120)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(FASTCAL_HAS_CUDA ON)
  elseif(FASTCAL_CUDA STREQUAL ON)
    message(
      FATAL_ERROR "FASTCAL_CUDA is ON but no nvcc was found: put it on PATH or set CUDACXX, "
                  "or build with FASTCAL_CUDA=AUTO for a CPU-only package")
  endif()
endif()
message(STATUS "fastcal: CUDA module ${FASTCAL_HAS_CUDA} (FASTCAL_CUDA=${FASTCAL_CUDA})")
