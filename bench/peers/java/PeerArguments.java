import java.net.InetSocketAddress;
import java.util.Set;

/** The command line that the Java peers share: --listen ADDRESS:PORT --mode echo|fanout [--deflate] | --version. */
record PeerArguments(InetSocketAddress listen, boolean echo, boolean deflate) {
    /** As many as the kernel keeps waiting (net.core.somaxconn caps it): thousands connect at once. */
    static final int BACKLOG = 4096;

    static PeerArguments parse(String[] words, String version) {
        InetSocketAddress listen = null;
        String mode = "echo";
        boolean deflate = false;
        for (int at = 0; at < words.length; at++) {
            switch (words[at]) {
                case "--version" -> {
                    System.out.println(version + ", Java " + Runtime.version());
                    System.exit(0);
                }
                case "--deflate" -> deflate = true;
                case "--listen" -> listen = address(value(words, ++at));
                case "--mode" -> mode = value(words, ++at);
                default -> fail(words[at] + ": unknown flag");
            }
        }
        if (listen == null) {
            fail("--listen is missing");
        }
        if (!Set.of("echo", "fanout").contains(mode)) {
            fail("--mode " + mode + ": echo or fanout");
        }
        return new PeerArguments(listen, mode.equals("echo"), deflate);
    }

    private static String value(String[] words, int at) {
        if (at == words.length) {
            fail(words[at - 1] + " needs a value");
        }
        return words[at];
    }

    private static InetSocketAddress address(String text) {
        int colon = text.lastIndexOf(':');
        if (colon < 0 || !text.substring(colon + 1).matches("\\d{1,5}")) {
            fail("--listen " + text + ": not ADDRESS:PORT");
        }
        return new InetSocketAddress(text.substring(0, colon), Integer.parseInt(text.substring(colon + 1)));
    }

    private static void fail(String mistake) {
        System.err.println(mistake + "\nusage: --listen ADDRESS:PORT --mode echo|fanout [--deflate] | --version");
        System.exit(2);
    }
}
