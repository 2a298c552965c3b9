// The types of gloo that c10d/ProcessGroupGloo.hpp names. libtorch contains gloo and its wheel
// leaves out gloo's headers; nothing here is called from this side, so that names and, of the
// store, the order of its virtual functions are enough.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace gloo {

class Context {
  public:
    void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class Device;
class UnboundBuffer;
} // namespace transport

namespace rendezvous {
class Store {
  public:
    virtual ~Store() = default;
    virtual void set(const std::string &key, const std::vector<char> &data) = 0;
    virtual std::vector<char> get(const std::string &key) = 0;
    virtual void wait(const std::vector<std::string> &keys) = 0;
    virtual void wait(const std::vector<std::string> &keys,
                      const std::chrono::milliseconds &timeout) = 0;
};
} // namespace rendezvous

} // namespace gloo
