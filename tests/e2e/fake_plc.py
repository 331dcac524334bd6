"""What a PLC does on the network: holding registers behind Modbus TCP, and lines over a socket."""

import socket
import socketserver
import struct
import threading


class ModbusServer(socketserver.ThreadingTCPServer):
    """Takes function 16 (write multiple registers) as in Modbus Application Protocol 1.1b3, and notes it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, refuses: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.refuses = refuses
        self.written: list[tuple[int, list[int]]] = []  # first register, values
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Request(socketserver.StreamRequestHandler):
    server: ModbusServer

    def handle(self) -> None:
        while head := self.rfile.read(7):
            transaction, protocol, length, unit = struct.unpack(">HHHB", head)
            body = self.rfile.read(length - 1)
            function, first, count, size = struct.unpack(">BHHB", body[:6])
            assert (protocol, function, size) == (0, 16, 2 * count)
            if self.server.refuses:  # exception 2: illegal data address
                self.wfile.write(struct.pack(">HHHBBB", transaction, 0, 3, unit, 0x80 | function, 2))
                continue
            self.server.written.append((first, list(struct.unpack(f">{count}H", body[6:]))))
            self.wfile.write(struct.pack(">HHHBBHH", transaction, 0, 6, unit, function, first, count))


class Line:
    """A PLC's connection to the gateway."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._file = self._socket.makefile("rw", encoding="utf-8", newline="\n")

    def say(self, line: str) -> str:
        """Send a line -> the answer."""
        self._file.write(f"{line}\n")
        self._file.flush()
        return self._file.readline().rstrip("\n")

    def close(self) -> None:
        self._file.close()
        self._socket.close()
