// Names for clang's thread-safety analysis (-Wthread-safety); nothing under other compilers.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#pragma once

#if defined(__clang__)
#define LARDER_ANNOTATION(x) __attribute__((x))
#else
#define LARDER_ANNOTATION(x)
#endif

#define CAPABILITY(x) LARDER_ANNOTATION(capability(x))
#define SCOPED_CAPABILITY LARDER_ANNOTATION(scoped_lockable)
#define GUARDED_BY(x) LARDER_ANNOTATION(guarded_by(x))
#define REQUIRES(...) LARDER_ANNOTATION(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) LARDER_ANNOTATION(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) LARDER_ANNOTATION(acquire_capability(__VA_ARGS__))
#define RELEASE(...) LARDER_ANNOTATION(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS LARDER_ANNOTATION(no_thread_safety_analysis)
