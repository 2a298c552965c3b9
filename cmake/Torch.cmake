# rp_torch (headers, libtorch_cpu, libc10), rp_torch_cuda (libc10_cuda, libcudart), from the wheels;
# RP_NCCL_INCLUDE_DIR where NCCL's header is.
#
# find_package(Torch) needs a whole CUDA toolkit beside the wheel and links libtorch_cuda into
# everything; this needs neither. libtorch_cuda is loaded at run time when a GPU is asked for.
set(RP_HAVE_TORCH OFF)
set(RP_HAVE_CUDA OFF)

if(NOT RP_TORCH STREQUAL "OFF")
    find_package(Python3 COMPONENTS Interpreter)
    if(Python3_FOUND)
        # In an isolated build, as pip makes one, only -I sees the environment of the interpreter.
        foreach(flags -B -I)
            if(NOT RP_TORCH_DIR)
                execute_process(COMMAND ${Python3_EXECUTABLE} ${flags} -c
                    "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
                    OUTPUT_VARIABLE RP_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
            endif()
        endforeach()
    endif()
endif()
rp_enabled(RP_HAVE_TORCH ${RP_TORCH} "${RP_TORCH_DIR}" "torch"
    "pass -DPython3_EXECUTABLE=<a python that has torch>")

if(RP_HAVE_TORCH)
    get_filename_component(site ${RP_TORCH_DIR} DIRECTORY)
    set(RP_NVIDIA_DIR ${site}/nvidia/cu13)
    file(GLOB nvidia_libs ${site}/nvidia/*/lib)
    find_package(Threads REQUIRED)
    add_library(rp_torch INTERFACE)
    target_include_directories(rp_torch SYSTEM INTERFACE
        ${RP_TORCH_DIR}/include ${RP_TORCH_DIR}/include/torch/csrc/api/include)
    target_link_libraries(rp_torch INTERFACE
        ${RP_TORCH_DIR}/lib/libtorch_cpu.so ${RP_TORCH_DIR}/lib/libc10.so Threads::Threads)
    foreach(dir ${nvidia_libs})
        target_link_options(rp_torch INTERFACE -Wl,-rpath-link,${dir})
    endforeach()
    set(RP_RUNTIME_PATHS "$ORIGIN" ${RP_TORCH_DIR}/lib ${RP_NVIDIA_DIR}/lib)

    # nvcc: CUDACXX, CUDA_HOME, PATH, then the wheels' own.
    if(NOT RP_CUDA STREQUAL "OFF")
        if(DEFINED ENV{CUDACXX})
            set(nvcc $ENV{CUDACXX})
        else()
            find_program(nvcc nvcc HINTS $ENV{CUDA_HOME}/bin PATHS ${RP_NVIDIA_DIR}/bin
                /usr/local/cuda/bin NO_CACHE)
        endif()
        find_library(cudart NAMES libcudart.so.13 PATHS ${RP_NVIDIA_DIR}/lib
            /usr/local/cuda/lib64 NO_DEFAULT_PATH NO_CACHE)
    endif()
    set(cuda_found OFF)
    if(nvcc AND cudart AND EXISTS ${RP_TORCH_DIR}/lib/libc10_cuda.so)
        set(cuda_found ON)
    endif()
    rp_enabled(RP_HAVE_CUDA ${RP_CUDA} ${cuda_found} "CUDA kernels"
        "pip install 'cuda-toolkit[nvcc,nvvm,crt,cudart,cccl]==13.0.2'")
endif()

if(RP_HAVE_CUDA)
    set(ENV{LIBRARY_PATH} "${RP_NVIDIA_DIR}/lib:$ENV{LIBRARY_PATH}") # the wheels have lib, not lib64
    set(CMAKE_CUDA_COMPILER ${nvcc})
    set(CMAKE_CUDA_RUNTIME_LIBRARY None)
    if(NOT CMAKE_CUDA_ARCHITECTURES)
        # sm_90a: the training kernel uses Hopper's own instructions; PTX for what comes later.
        set(CMAKE_CUDA_ARCHITECTURES 90a-real CACHE STRING "GPU architectures")
    endif()
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    add_library(rp_torch_cuda INTERFACE)
    target_include_directories(rp_torch_cuda SYSTEM INTERFACE
        ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    target_link_libraries(rp_torch_cuda INTERFACE
        rp_torch ${RP_TORCH_DIR}/lib/libc10_cuda.so ${cudart})
    find_path(RP_NCCL_INCLUDE_DIR nccl.h HINTS ${site}/nvidia/nccl/include)
endif()
