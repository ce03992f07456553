// Inspect frames with OpenVINO alone: inspect EXPORTED FRAME.ppm...
//
// EXPORTED is what `fapm export part.fapm EXPORTED` wrote. A frame is a binary PPM (P6, RGB, 8 bit)
// of the size that detector.json names; a camera's buffer of that size and order serves as well.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>

ov::Tensor read_frame(const std::string& path, const ov::Shape& shape) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    std::size_t width = 0, height = 0, deepest = 0;
    file >> kind >> width >> height >> deepest;
    file.get();  // the one blank before the pixels
    if (!file || kind != "P6" || deepest != 255)
        throw std::runtime_error(path + ": not a binary PPM of 8 bit");
    if (height != shape[1] || width != shape[2])
        throw std::runtime_error(path + ": must be " + std::to_string(shape[2]) + " x " +
                                 std::to_string(shape[1]) + " pixels");
    ov::Tensor frame(ov::element::u8, shape);
    file.read(reinterpret_cast<char*>(frame.data<std::uint8_t>()), frame.get_byte_size());
    if (!file) throw std::runtime_error(path + ": ends too soon");
    return frame;
}

int main(int count, char** arguments) try {
    if (count < 3) throw std::runtime_error("usage: inspect EXPORTED FRAME.ppm...");
    ov::Core core;
    auto model = core.compile_model(std::string(arguments[1]) + "/model.xml", "CPU",
                                    ov::hint::inference_precision(ov::element::f32),
                                    ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
    auto request = model.create_infer_request();
    for (int i = 2; i < count; ++i) {
        request.set_input_tensor(read_frame(arguments[i], model.input().get_shape()));
        request.infer();
        const auto maps = request.get_tensor("maps");
        const float* map = maps.data<float>();
        const auto worst = std::max_element(map, map + maps.get_size()) - map;
        const auto width = static_cast<long>(maps.get_shape()[2]);
        std::cout << request.get_tensor("scores").data<float>()[0] << " worst at " << worst % width
                  << ", " << worst / width << " " << arguments[i] << "\n";
    }
} catch (const std::exception& error) {
    std::cerr << "inspect: " << error.what() << "\n";
    return 2;
}
