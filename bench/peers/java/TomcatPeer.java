import jakarta.servlet.ServletContext;
import jakarta.websocket.CloseReason;
import jakarta.websocket.DeploymentException;
import jakarta.websocket.Endpoint;
import jakarta.websocket.EndpointConfig;
import jakarta.websocket.MessageHandler;
import jakarta.websocket.SendHandler;
import jakarta.websocket.SendResult;
import jakarta.websocket.Session;
import jakarta.websocket.server.ServerContainer;
import jakarta.websocket.server.ServerEndpointConfig;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.apache.catalina.Context;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.servlets.DefaultServlet;
import org.apache.catalina.startup.Tomcat;
import org.apache.catalina.util.ServerInfo;
import org.apache.tomcat.websocket.server.WsSci;

/**
 * Tomcat, embedded, with jakarta.websocket endpoints: echo and fan-out.
 *
 * <p>The echo takes messages in parts and sends them back in parts, as Tomcat's own echo example does:
 * whole messages would need a buffer of the largest size for each connection. The fan-out sends
 * asynchronously with a queue per session, as Tomcat's own chat example does, since a session takes one
 * message at a time. Compression is negotiated whenever the client offers it.
 */
public final class TomcatPeer {
    /** More than are measured; Tomcat's own default is 8,192. */
    private static final int CONNECTIONS_MAX = 65_536;

    private TomcatPeer() {}

    public static void main(String[] words) throws IOException, LifecycleException {
        PeerArguments arguments = PeerArguments.parse(words, ServerInfo.getServerNumber());
        Logger.getLogger("org.apache").setLevel(Level.WARNING);
        Path directory = Files.createTempDirectory("tomcat-peer");
        Runtime.getRuntime().addShutdownHook(new Thread(() -> remove(directory)));
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(directory.toString());
        tomcat.setConnector(connector(arguments));
        Context context = tomcat.addContext("", directory.toString());
        // What answers when no endpoint does; the WebSocket filter stands before it.
        Tomcat.addServlet(context, "default", new DefaultServlet()).addMapping("/");
        Class<? extends Endpoint> endpoint = arguments.echo() ? Echo.class : Fanout.class;
        context.addServletContainerInitializer(new WsSci(), Set.of());
        context.addServletContainerInitializer((classes, servlets) -> deploy(servlets, endpoint), Set.of());
        tomcat.start();
        System.out.println("listening on " + arguments.listen());
        tomcat.getServer().await();
    }

    private static Connector connector(PeerArguments arguments) {
        Connector connector = new Connector("org.apache.coyote.http11.Http11NioProtocol");
        connector.setPort(arguments.listen().getPort());
        connector.setProperty("address", arguments.listen().getAddress().getHostAddress());
        connector.setProperty("maxConnections", Integer.toString(CONNECTIONS_MAX));
        connector.setProperty("acceptCount", Integer.toString(PeerArguments.BACKLOG));
        return connector;
    }

    private static void deploy(ServletContext servlets, Class<? extends Endpoint> endpoint) {
        ServerContainer container = (ServerContainer) servlets.getAttribute(ServerContainer.class.getName());
        try {
            container.addEndpoint(ServerEndpointConfig.Builder.create(endpoint, "/").build());
        } catch (DeploymentException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static void remove(Path directory) {
        try (var paths = Files.walk(directory)) {
            paths.sorted(java.util.Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
        } catch (IOException left) {
            // A temporary directory that stays is no reason to fail.
        }
    }

    /** Every part of a message back, as it comes. */
    public static final class Echo extends Endpoint {
        @Override
        public void onOpen(Session session, EndpointConfig config) {
            var remote = session.getBasicRemote();
            session.addMessageHandler(String.class, (MessageHandler.Partial<String>) (part, last) -> {
                try {
                    remote.sendText(part, last);
                } catch (IOException gone) {
                    close(session);
                }
            });
            session.addMessageHandler(ByteBuffer.class, (MessageHandler.Partial<ByteBuffer>) (part, last) -> {
                try {
                    remote.sendBinary(part, last);
                } catch (IOException gone) {
                    close(session);
                }
            });
        }

        @Override
        public void onError(Session session, Throwable cause) {
            close(session);
        }
    }

    /** What one connection sends goes to all others. */
    public static final class Fanout extends Endpoint {
        private static final Set<Subscriber> SUBSCRIBERS = ConcurrentHashMap.newKeySet();

        private Subscriber own;

        @Override
        public void onOpen(Session session, EndpointConfig config) {
            own = new Subscriber(session);
            SUBSCRIBERS.add(own);
            session.addMessageHandler(String.class, (MessageHandler.Whole<String>) this::publish);
            session.addMessageHandler(ByteBuffer.class, (MessageHandler.Whole<ByteBuffer>) message -> {
                // The buffer is Tomcat's again when this returns.
                ByteBuffer copy = ByteBuffer.allocate(message.remaining()).put(message).flip();
                publish(copy);
            });
        }

        private void publish(Object message) {
            for (Subscriber subscriber : SUBSCRIBERS) {
                if (subscriber != own) {
                    subscriber.send(message);
                }
            }
        }

        @Override
        public void onClose(Session session, CloseReason reason) {
            SUBSCRIBERS.remove(own);
        }

        @Override
        public void onError(Session session, Throwable cause) {
            SUBSCRIBERS.remove(own);
            close(session);
        }
    }

    /** A session with the messages that wait until the one under way is sent. */
    private static final class Subscriber implements SendHandler {
        private final Session session;
        private final ArrayDeque<Object> waiting = new ArrayDeque<>();
        /** A message is under way, or about to be. */
        private boolean sending;
        /** `start` has not returned yet: whoever called it goes on, rather than the handler inside it. */
        private boolean starting;
        private boolean done;

        Subscriber(Session session) {
            this.session = session;
        }

        void send(Object message) {
            synchronized (this) {
                waiting.add(message);
                if (sending) {
                    return;
                }
                sending = true;
            }
            drain();
        }

        private void drain() {
            while (true) {
                Object next;
                synchronized (this) {
                    next = waiting.poll();
                    sending = next != null;
                    if (!sending) {
                        return;
                    }
                    starting = true;
                    done = false;
                }
                start(next);
                synchronized (this) {
                    starting = false;
                    if (!done) {
                        return;
                    }
                }
            }
        }

        private void start(Object message) {
            try {
                if (message instanceof String text) {
                    session.getAsyncRemote().sendText(text, this);
                } else {
                    session.getAsyncRemote().sendBinary(((ByteBuffer) message).duplicate(), this);
                }
            } catch (IllegalStateException closed) {
                close(session);
            }
        }

        @Override
        public void onResult(SendResult result) {
            if (!result.isOK()) {
                close(session);
                return;
            }
            synchronized (this) {
                done = true;
                if (starting) {
                    return;
                }
            }
            drain();
        }
    }

    private static void close(Session session) {
        try {
            session.close();
        } catch (IOException | IllegalStateException gone) {
            // It is closed already.
        }
    }
}
