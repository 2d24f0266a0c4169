// Threads that stay: work split into chunks is handed to them and to the caller, who returns when
// all is done. Has no kernel counterpart.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>

namespace ptwalk {

class ThreadPool {
 public:
  using Work = std::function<void(std::size_t chunk)>;

  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// The pool of the process; a forked child gets one of its own. Never destroyed, so that workers
  /// may sleep through the end of the process.
  static ThreadPool& shared();
  /// Processors that this process may use.
  static unsigned usable_cpus();

  /// Calls work(0) … work(chunks - 1), each once, on at most `threads` threads, the caller among
  /// them. Runs in the caller alone inside other work, or while another caller has the workers.
  /// Rethrows the first exception after all threads have stopped.
  void run(unsigned threads, std::size_t chunks, const Work& work);

 private:
  struct Job {
    const Work* work = nullptr;
    std::size_t chunks = 0;
    std::size_t next = 0;
    unsigned wanted = 0;   ///< workers that may still join
    unsigned running = 0;  ///< workers that have joined and not finished
    std::exception_ptr error{};
  };
  void serve();
  void take_chunks(std::unique_lock<std::mutex>& lock);

  std::mutex busy_;   ///< held by the caller whose job it is
  std::mutex mutex_;  ///< guards the rest
  std::condition_variable work_, done_;
  Job job_;
  unsigned workers_ = 0;
};

}  // namespace ptwalk
