import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandler.Sharable;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.ChannelPipeline;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.ServerChannel;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.epoll.Epoll;
import io.netty.channel.epoll.EpollEventLoopGroup;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.channel.group.ChannelGroup;
import io.netty.channel.group.ChannelMatchers;
import io.netty.channel.group.DefaultChannelGroup;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.websocketx.WebSocketFrame;
import io.netty.handler.codec.http.websocketx.WebSocketServerProtocolHandler;
import io.netty.handler.codec.http.websocketx.extensions.compression.WebSocketServerCompressionHandler;
import io.netty.util.Version;
import io.netty.util.concurrent.GlobalEventExecutor;

/**
 * Netty on one event loop: echo and fan-out of WebSocket frames.
 *
 * <p>The pipeline is that of Netty's own WebSocket example. As its guides advise, nothing is flushed
 * message by message but when all that was read is handled, frames pass without a copy, and the native
 * transport is used where it is there (Debian packages its classes without the library: then NIO).
 */
public final class NettyPeer {
    private static final int REQUEST_BYTES_MAX = 65_536;
    /** Above the largest message that is measured. */
    private static final int FRAME_BYTES_MAX = 16 * 1024 * 1024;

    private NettyPeer() {}

    public static void main(String[] words) throws InterruptedException {
        boolean epoll = Epoll.isAvailable();
        PeerArguments arguments = PeerArguments.parse(words, version(epoll));
        Class<? extends ServerChannel> channel = epoll ? EpollServerSocketChannel.class : NioServerSocketChannel.class;
        EventLoopGroup loop = epoll ? new EpollEventLoopGroup(1) : new NioEventLoopGroup(1);
        SimpleChannelInboundHandler<WebSocketFrame> handler = arguments.echo() ? new Echo() : new Fanout();
        Channel server = new ServerBootstrap()
                .group(loop)
                .channel(channel)
                .option(ChannelOption.SO_BACKLOG, PeerArguments.BACKLOG)
                .option(ChannelOption.SO_REUSEADDR, true)
                .childHandler(new Initializer(arguments.deflate(), handler))
                .bind(arguments.listen())
                .sync()
                .channel();
        System.out.println("listening on " + arguments.listen());
        server.closeFuture().sync();
    }

    private static String version(boolean epoll) {
        var artifact = Version.identify().get("netty-transport");
        String number = artifact == null ? "of unknown version" : artifact.artifactVersion();
        return number + " on " + (epoll ? "its native epoll transport" : "NIO");
    }

    private static final class Initializer extends ChannelInitializer<Channel> {
        private final boolean deflate;
        private final SimpleChannelInboundHandler<WebSocketFrame> handler;

        Initializer(boolean deflate, SimpleChannelInboundHandler<WebSocketFrame> handler) {
            this.deflate = deflate;
            this.handler = handler;
        }

        @Override
        protected void initChannel(Channel channel) {
            ChannelPipeline pipeline = channel.pipeline();
            pipeline.addLast(new HttpServerCodec());
            pipeline.addLast(new HttpObjectAggregator(REQUEST_BYTES_MAX));
            if (deflate) {
                pipeline.addLast(new WebSocketServerCompressionHandler());
            }
            pipeline.addLast(new WebSocketServerProtocolHandler("/", null, deflate, FRAME_BYTES_MAX));
            pipeline.addLast(handler);
        }
    }

    /** Every frame back; fragments as they come. Pings and closes are the protocol handler's. */
    @Sharable
    private static final class Echo extends SimpleChannelInboundHandler<WebSocketFrame> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, WebSocketFrame frame) {
            context.write(frame.retain(), context.voidPromise());
        }

        @Override
        public void channelReadComplete(ChannelHandlerContext context) {
            context.flush();
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
            context.close();
        }
    }

    /** What one connection sends goes to all others, through Netty's own ChannelGroup. */
    @Sharable
    private static final class Fanout extends SimpleChannelInboundHandler<WebSocketFrame> {
        private final ChannelGroup channels = new DefaultChannelGroup(GlobalEventExecutor.INSTANCE);

        @Override
        public void userEventTriggered(ChannelHandlerContext context, Object event) throws Exception {
            if (event instanceof WebSocketServerProtocolHandler.HandshakeComplete) {
                channels.add(context.channel());
            }
            super.userEventTriggered(context, event);
        }

        @Override
        protected void channelRead0(ChannelHandlerContext context, WebSocketFrame frame) {
            channels.write(frame.retain(), ChannelMatchers.isNot(context.channel()), true);
        }

        @Override
        public void channelReadComplete(ChannelHandlerContext context) {
            channels.flush(ChannelMatchers.isNot(context.channel()));
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
            context.close();
        }
    }
}
