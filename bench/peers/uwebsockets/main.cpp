// The uWebSockets peer: echo and publish, in the configuration of its own examples.
//
//   uwebsockets --mode echo|fanout|topics --listen HOST:PORT [--core N] [--deflate shared|dedicated] [--backpressure BYTES]
//   uwebsockets-tls, the same with --certificate FILE --key FILE [--memory low]
//
// Its C++ is compiled straight against the library, with the flags of the library's own Makefile and
// its native event loop (see `prepare`). The C interface in between would cost it libuv and a second
// callback per message.
//
//   echo     examples/EchoServer.cpp: answers are corked by the library while it reads
//   fanout   examples/Broadcast.cpp: everybody is subscribed to one topic, and what a socket sends is
//            published to it; `publish` of a socket leaves out the sender
//   topics   "S topic" subscribes; "P topic\ndata" publishes data to the topic
//
// `--deflate shared` has one compressor for all, as Broadcast.cpp; `dedicated` one of 4 KB for each
// connection, as EchoServer.cpp: it remembers what it has sent, and costs that memory.
//
// `--backpressure` is the library's maxBackpressure: how much may wait for a connection, beyond which
// what is published is not sent to it. Without it that is never reached.
//
// Compiled with WITH_TLS it is an SSLApp, on OpenSSL. `--memory low` is the library's
// ssl_prefer_low_memory_usage: OpenSSL gives back the buffers of idle connections.

#include <arpa/inet.h>
#include <sched.h>
#include <sys/resource.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include "App.h"

namespace {

#ifdef WITH_TLS
constexpr bool has_tls = true;
#else
constexpr bool has_tls = false;
#endif

// As in EchoServer.cpp; 16 messages of 1 MiB are meant to be in flight.
constexpr unsigned int bytes_max = 100 * 1024 * 1024;

struct Arguments {
    std::string mode = "echo";
    std::string host;
    int port = 0;
    int core = -1;
    unsigned int backpressure = bytes_max;
    uWS::CompressOptions compression = uWS::DISABLED;
    std::string certificate;
    std::string key;
    bool is_memory_low = false;
};

// Nothing is kept for a connection.
struct PerSocketData {};
using Socket = uWS::WebSocket<has_tls, true, PerSocketData>;

constexpr std::string_view everybody = "all";

[[noreturn]] void fail(std::string_view what) {
    std::cerr << what
              << "\nusage: --mode echo|fanout|topics --listen HOST:PORT [--core N] [--deflate shared|dedicated] "
                 "[--backpressure BYTES] [--certificate FILE --key FILE [--memory low]]"
              << std::endl;
    std::exit(2);
}

Arguments parse(int count, char **words) {
    Arguments arguments;
    for (int at = 1; at < count; at++) {
        std::string_view flag = words[at];
        if (++at == count) fail(std::string(flag) + " needs a value");
        std::string value = words[at];
        if (flag == "--mode") {
            arguments.mode = value;
        } else if (flag == "--deflate" && value == "shared") {
            arguments.compression = uWS::CompressOptions(uWS::SHARED_COMPRESSOR | uWS::SHARED_DECOMPRESSOR);
        } else if (flag == "--deflate" && value == "dedicated") {
            arguments.compression = uWS::CompressOptions(uWS::DEDICATED_COMPRESSOR_4KB | uWS::DEDICATED_DECOMPRESSOR);
        } else if (flag == "--backpressure") {
            arguments.backpressure = static_cast<unsigned int>(std::atoi(value.c_str()));
        } else if (flag == "--certificate" && has_tls) {
            arguments.certificate = value;
        } else if (flag == "--key" && has_tls) {
            arguments.key = value;
        } else if (flag == "--memory" && value == "low" && has_tls) {
            arguments.is_memory_low = true;
        } else if (flag == "--core") {
            arguments.core = std::atoi(value.c_str());
        } else if (size_t colon = value.rfind(':'); flag == "--listen" && colon != value.npos) {
            arguments.host = value.substr(0, colon);
            arguments.port = std::atoi(value.c_str() + colon + 1);
        } else {
            fail(std::string(flag) + " " + value + ": not valid");
        }
    }
    if (arguments.port == 0) fail("--listen is missing");
    if (has_tls && (arguments.certificate.empty() || arguments.key.empty())) {
        fail("--certificate or --key is missing");
    }
    return arguments;
}

void prepare_process(int core) {
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(static_cast<size_t>(core), &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0) fail("no such core");
    }
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int count, char **words) {
    const Arguments arguments = parse(count, words);
    prepare_process(arguments.core);
    const bool deflate = arguments.compression != uWS::DISABLED;
    using App = uWS::TemplatedApp<has_tls>;
    // Without TLS these are not looked at.
    App app({
        .key_file_name = arguments.key.c_str(),
        .cert_file_name = arguments.certificate.c_str(),
        .ssl_prefer_low_memory_usage = arguments.is_memory_low,
    });
    if (app.constructorFailed()) fail("the certificate and its key cannot be used");
    App::WebSocketBehavior<PerSocketData> behavior = {
        .compression = arguments.compression,
        .maxPayloadLength = bytes_max,
        .idleTimeout = 120,
        .maxBackpressure = arguments.backpressure,
        .closeOnBackpressureLimit = false,
        .resetIdleTimeoutOnSend = false,
        .sendPingsAutomatically = true,
    };
    if (arguments.mode == "echo") {
        behavior.message = [deflate](Socket *socket, std::string_view message, uWS::OpCode opcode) {
            socket->send(message, opcode, deflate);
        };
    } else if (arguments.mode == "fanout") {
        behavior.open = [](Socket *socket) { socket->subscribe(everybody); };
        behavior.message = [deflate](Socket *socket, std::string_view message, uWS::OpCode opcode) {
            socket->publish(everybody, message, opcode, deflate);
        };
    } else if (arguments.mode == "topics") {
        behavior.message = [deflate, &app](Socket *socket, std::string_view message,
                                           uWS::OpCode opcode) {
            if (message.starts_with("S ")) {
                socket->subscribe(message.substr(2));
            } else if (size_t line = message.find('\n');
                       message.starts_with("P ") && line != message.npos) {
                app.publish(message.substr(2, line - 2), message.substr(line + 1), opcode, deflate);
            } else {
                socket->end(1008, "neither S nor P");
            }
        };
    } else {
        fail("--mode " + arguments.mode + ": not valid");
    }
    app.ws<PerSocketData>("/*", std::move(behavior))
        .listen(arguments.host, arguments.port,
                [&](us_listen_socket_t *listener) {
                    if (!listener) fail("cannot listen there");
                    std::cout << "listening on " << arguments.host << ":" << arguments.port << std::endl;
                })
        .run();
}
