#include "ptwalk/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <system_error>
#include <thread>

namespace ptwalk {
namespace {

thread_local bool inside = false;  // of some work: more threads would only wait for each other

ThreadPool*& shared_pool() {
  static ThreadPool* pool = [] {
    // The child has none of the workers, and locks in any state: it leaves the old pool alone.
    ::pthread_atfork(nullptr, nullptr, [] {
      inside = false;
      shared_pool() = new ThreadPool;
    });
    return new ThreadPool;
  }();
  return pool;
}

}  // namespace

ThreadPool& ThreadPool::shared() { return *shared_pool(); }

unsigned ThreadPool::usable_cpus() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set)) return 1;
  return unsigned(std::max(1, CPU_COUNT(&set)));
}

void ThreadPool::run(unsigned threads, std::size_t chunks, const Work& work) {
  std::unique_lock busy(busy_, std::defer_lock);
  if (threads < 2 || chunks < 2 || inside || !busy.try_lock()) {
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) work(chunk);
    return;
  }
  std::unique_lock lock(mutex_);
  const auto helpers = unsigned(std::min<std::size_t>(threads, chunks)) - 1;
  job_ = {.work = &work, .chunks = chunks, .wanted = helpers};
  try {
    for (; workers_ < helpers; ++workers_) std::thread([this] { serve(); }).detach();
  } catch (const std::system_error&) {  // no more threads to be had: fewer will do
  }
  work_.notify_all();
  take_chunks(lock);
  job_.wanted = 0;
  done_.wait(lock, [this] { return job_.running == 0; });
  if (job_.error) std::rethrow_exception(job_.error);
}

/// Works through chunks until none is left; `lock` is held before and after.
void ThreadPool::take_chunks(std::unique_lock<std::mutex>& lock) {
  inside = true;
  while (job_.next < job_.chunks) {
    const std::size_t chunk = job_.next++;
    const Work& work = *job_.work;
    lock.unlock();
    try {
      work(chunk);
      lock.lock();
    } catch (...) {
      lock.lock();
      if (!job_.error) job_.error = std::current_exception();
      job_.next = job_.chunks;
    }
  }
  inside = false;
}

void ThreadPool::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return job_.wanted > 0; });
    --job_.wanted;
    ++job_.running;
    take_chunks(lock);
    if (--job_.running == 0) done_.notify_all();
  }
}

}  // namespace ptwalk
